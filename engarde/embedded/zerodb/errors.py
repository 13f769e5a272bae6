"""The one error that becomes an HTTP answer."""

from typing import Any


class Refused(Exception):
    """The request gets an error answer instead of a result.

    Attributes:
        status: HTTP status code of the answer.
        detail: What stands under `detail` in its body: a text, or a list of field errors for 422.
    """

    def __init__(self, status: int, detail: str | list[dict[str, Any]]) -> None:
        super().__init__(status, detail)
        self.status = status
        self.detail = detail
