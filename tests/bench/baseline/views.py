"""A plain viewset: ModelSerializer, page numbers, count(*); only the API key is checked as the platform does."""

from typing import Any

from django.db.models import QuerySet
from rest_framework import serializers, viewsets
from rest_framework.pagination import PageNumberPagination
from rest_framework.parsers import JSONParser
from rest_framework.renderers import JSONRenderer

from engarde.accounts.principal import caller
from tests.bench.baseline.models import Item


class Summary(serializers.ModelSerializer[Item]):
    class Meta:
        model = Item
        exclude = ["tenant_id", "body"]


class Whole(serializers.ModelSerializer[Item]):
    class Meta:
        model = Item
        exclude = ["tenant_id"]


class Pages(PageNumberPagination):
    page_size = 20
    page_size_query_param = "pageSize"


class ItemViewSet(viewsets.ModelViewSet[Item]):
    renderer_classes = [JSONRenderer]
    parser_classes = [JSONParser]
    pagination_class = Pages

    def get_queryset(self) -> QuerySet[Item]:
        items = Item.objects.filter(tenant_id=caller(self.request).tenant_id).order_by("-created_at", "-id")
        return items.defer("body") if self.get_serializer_class() is Summary else items

    def get_serializer_class(self) -> type[serializers.ModelSerializer[Item]]:
        return Summary if self.action == "list" and "include" not in self.request.query_params else Whole

    def perform_create(self, serializer: Any) -> None:
        serializer.save(tenant_id=caller(self.request).tenant_id)
