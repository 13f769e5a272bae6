"""Path converters."""

from uuid import UUID


class IdConverter:
    """An id in an address: a UUID in its usual form, in either case; anything else leads nowhere (404)."""

    regex = "[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}"

    def to_python(self, value: str) -> UUID:
        """Return the id."""
        return UUID(value)

    def to_url(self, value: UUID) -> str:
        """Return the id as text."""
        return str(value)
