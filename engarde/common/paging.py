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
    total = serializers.IntegerField(allow_null=True)
    totalIsEstimate = serializers.BooleanField(required=False, help_text="There, and true, beyond 10,000.")
    totalPages = serializers.IntegerField(allow_null=True)
    hasNext = serializers.BooleanField()
    hasPrevious = serializers.BooleanField(allow_null=True)
    nextCursor = serializers.CharField(allow_null=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[Row]):
    """One page of rows.

    Attributes:
        rows: the rows of this page.
        number: the page, from 1; None when a cursor led here.
        size: rows asked for.
        total: rows on all pages; None when they were not counted.
        is_estimate: whether the total is one.
        has_next: whether more rows follow; None to go by the total.
    """

    rows: Sequence[Row]
    number: int | None
    size: int
    total: int | None
    is_estimate: bool = False
    has_next: bool | None = None
    next_cursor: str | None = None

    @property
    def pages(self) -> int | None:
        """How many pages there are."""
        return None if self.total is None else -(-self.total // self.size)

    def envelope(self, data: list[Any]) -> dict[str, Any]:
        """Return the answer's body with `data` in place of the rows."""
        has_next = (self.number or 0) < (self.pages or 0) if self.has_next is None else self.has_next
        pagination = {
            "page": self.number,
            "pageSize": self.size,
            "total": self.total,
            "totalPages": self.pages,
            "hasNext": has_next,
            "hasPrevious": None if self.number is None else self.number > 1,
            "nextCursor": self.next_cursor,
        }
        if self.is_estimate:
            pagination["totalIsEstimate"] = True
        return {"data": data, "pagination": pagination}
