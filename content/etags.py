"""Entity tags: each names one version of one item, wherever its document is kept.

An `If-Match` or `If-None-Match` holds several tags or `*`. A `W/` before a tag is accepted: a proxy that compresses
answers puts it there, and the content behind it is the same.
"""

import re
from dataclasses import dataclass
from uuid import UUID

TAG = re.compile(r'(?:W/)?"([^"]*)"')


def etag_of(content_id: UUID, version: int, sha256: bytes) -> str:
    """Return the strong tag of a version, with its quotes."""
    return f'"{content_id}-{version}-{sha256.hex()[:16]}"'


@dataclass(frozen=True, slots=True)
class Match:
    """The tags of a precondition header.

    Attributes:
        tags: with quotes, without `W/`.
        is_any: whether it was `*`.
        is_given: whether there was a header at all.
    """

    tags: frozenset[str] = frozenset()
    is_any: bool = False
    is_given: bool = False

    @classmethod
    def parse(cls, header: str | None) -> "Match":
        """Read a header; what is not a tag matches nothing."""
        if header is None:
            return cls()
        return cls(frozenset(f'"{tag}"' for tag in TAG.findall(header)), header.strip() == "*", is_given=True)

    def allows(self, etag: str) -> bool:
        """Tell whether a write under this `If-Match` may change the version with that tag."""
        return not self.is_given or self.is_any or etag in self.tags

    def knows(self, etag: str) -> bool:
        """Tell whether a reader with this `If-None-Match` has the version with that tag."""
        return self.is_given and (self.is_any or etag in self.tags)

    def versions_of(self, content_id: UUID) -> list[int]:
        """Return the versions of an item that the tags name."""
        start = f'"{content_id}-'
        numbers = [tag.removeprefix(start).partition("-")[0] for tag in self.tags if tag.startswith(start)]
        return sorted(int(number) for number in numbers if re.fullmatch("[0-9]{1,9}", number))


ANY = Match()
