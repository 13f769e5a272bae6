"""Addresses: every room's below /api, health and metrics, the schema and the admin."""

from django.contrib import admin
from django.urls import include, path, register_converter
from django.views.generic import RedirectView
from drf_spectacular.renderers import OpenApiJsonRenderer
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerView

from engarde.common.converters import IdConverter

register_converter(IdConverter, "id")

handler400 = "engarde.common.problems.bad_request"
handler403 = "engarde.common.problems.permission_denied"
handler404 = "engarde.common.problems.not_found"
handler500 = "engarde.common.problems.server_error"

urlpatterns = [
    path("api/", include("engarde.accounts.urls")),
    path("api/", include("quotas.urls")),
    path("api/", include("generation.urls")),
    path("api/", include("dr.urls")),
    path("api/", include("content.urls")),
    path("api/schema", SpectacularAPIView.as_view(renderer_classes=[OpenApiJsonRenderer]), name="schema"),
    path("api/docs", SpectacularSwaggerView.as_view(url_name="schema")),
    path("", include("engarde.health")),
    path("admin/", admin.site.urls),
    path("admin", RedirectView.as_view(url="/admin/")),
    path("", RedirectView.as_view(url="/api/docs")),
]
