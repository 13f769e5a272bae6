"""Pages of a list: the query parameters and the envelope around them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from rest_framework import serializers

from engarde.common.fields import QueryIntegerField, QuerySerializer

Row = TypeVar("Row")

DEFAULT_PAGE_SIZE = 20
MAX_PAGE_SIZE = 100
MAX_PAGE = 10**15  # times the page size, still a bigint


class PageQuery(QuerySerializer):
    """`page` from 1 and `pageSize` from 1 to 100."""

    page = QueryIntegerField(min_value=1, max_value=MAX_PAGE, default=1)
    pageSize = QueryIntegerField(min_value=1, max_value=MAX_PAGE_SIZE, default=DEFAULT_PAGE_SIZE)


class PaginationOutput(serializers.Serializer[Any]):
    """What a list says about the page it answers with."""

    page = serializers.IntegerField(allow_null=True)
    pageSize = serializers.IntegerField()
    total = serializers.IntegerField()
    totalPages = serializers.IntegerField()
    hasNext = serializers.BooleanField()
    hasPrevious = serializers.BooleanField(allow_null=True)
    nextCursor = serializers.CharField(allow_null=True)


@dataclass(frozen=True, slots=True)
class Page(Generic[Row]):
    """One page of rows.

    Attributes:
        rows: the rows of this page.
        number: the page, from 1.
        size: rows asked for.
        total: rows on all pages.
    """

    rows: Sequence[Row]
    number: int
    size: int
    total: int

    def envelope(self, data: list[Any]) -> dict[str, Any]:
        """Return the answer's body with `data` in place of the rows."""
        pages = -(-self.total // self.size)
        pagination = {
            "page": self.number,
            "pageSize": self.size,
            "total": self.total,
            "totalPages": pages,
            "hasNext": self.number < pages,
            "hasPrevious": self.number > 1,
            "nextCursor": None,
        }
        return {"data": data, "pagination": pagination}
