"""Somebody who writes and reads through the API, remembers what must be there, and believes no answer."""

from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.conf import settings

from content.models import SpooledDocument
from engarde.common.scopes import system_scope
from tests import tiers
from tests.content.answers import ok, refused
from tests.faults.world import World
from tests.people import Person


@dataclass(frozen=True)
class Version:
    """What a version must be read as."""

    body: str
    tags: tuple[str, ...]
    change_type: str


@dataclass
class Item:
    """An item as its author remembers it; version numbers count from 1."""

    id: str
    versions: list[Version]
    deleted: bool = False

    @property
    def newest(self) -> int:
        return len(self.versions)

    @property
    def oldest(self) -> int:
        return max(1, self.newest - settings.CONTENT_MAX_VERSIONS + 1)


@dataclass
class Author:
    """Checks every answer against what was acknowledged.

    An answer may be "document_unavailable" only where ZeroDB is in trouble and no other tier that may be read has the document.
    """

    world: World
    person: Person
    items: list[Item] = field(default_factory=list)

    def create(self, body: str, tags: tuple[str, ...] = ()) -> Item:
        shown = self.person.writes(body=body, tags=list(tags))
        item = Item(shown["id"], [Version(body, tags, "create")])
        self.items.append(item)
        check_item(shown, item)
        self._must_read(item)
        return item

    def update(self, item: Item, body: str) -> None:
        answer = self.person.api.patch(f"/api/content/{item.id}", {"body": body})
        if item.deleted:
            refused(answer, 404, "not_found")
        elif self._was_done(answer, item, item.newest):
            if body != item.versions[-1].body:
                item.versions.append(Version(body, item.versions[-1].tags, "update"))
                self._must_read(item)
            check_item(answer.json(), item)

    def delete(self, item: Item) -> None:
        answer = self.person.api.delete(f"/api/content/{item.id}")
        if item.deleted:
            refused(answer, 404, "not_found")
            return
        ok(answer)
        self._repeat(item, item.newest, "delete")
        item.deleted = True
        self.read(item)

    def undelete(self, item: Item) -> None:
        """Take an item out of the trash, which needs no document."""
        answer = self.person.api.post(f"/api/content/{item.id}/restore")
        if not item.deleted:
            refused(answer, 409, "not_deleted")
            return
        shown = ok(answer)
        self._repeat(item, item.newest, "restore")
        item.deleted = False
        self._check_shown(shown, item)
        self.read(item)

    def restore(self, item: Item, number: int) -> None:
        answer = self.person.api.post(f"/api/content/{item.id}/versions/{number}/restore")
        if answer.status_code == 503:
            self._was_done(answer, item, number)
        elif item.deleted or number < item.oldest:
            refused(answer, 404, "not_found")
        else:
            ok(answer)
            self._repeat(item, number, "restore")
            check_item(answer.json(), item)
            self._must_read(item)

    def tag(self, tag: str) -> None:
        """Tag all items at once."""
        ids = [item.id for item in self.items]
        answer = ok(self.person.api.post("/api/content/bulk", {"action": "tag", "ids": ids, "tags": [tag]}))
        assert [result["id"] for result in answer["results"]] == ids
        for item, result in zip(self.items, answer["results"], strict=True):
            self._note_tag(item, tag, result)

    def _note_tag(self, item: Item, tag: str, result: dict[str, Any]) -> None:
        if item.deleted:
            assert result["status"] == 404
        elif not result["ok"]:
            assert (result["status"], result["code"]) == (503, "document_unavailable")
            assert self._may_be_unavailable(item, item.newest), f"{item.id} should have been tagged"
        elif tag not in (last := item.versions[-1]).tags:
            item.versions.append(Version(last.body, (*last.tags, tag), "update"))

    def read(self, item: Item, number: int | None = None) -> None:
        """Read the current version, or one by its number, from the tiers."""
        tiers.forget_copies()
        query: dict[str, Any] = {} if number is None else {"version": number}
        answer = self.person.api.get(f"/api/content/{item.id}", query)
        number = number or item.newest
        if item.deleted or not item.oldest <= number <= item.newest:
            refused(answer, 404, "not_found")
        elif self._was_done(answer, item, number):
            check_item(answer.json(), item, number)

    def read_list(self) -> list[dict[str, Any]]:
        """Read all live items in one page, with their bodies, and return them."""
        tiers.forget_copies()
        page = ok(self.person.api.get("/api/content", {"include": "body", "pageSize": "100"}))
        live = {item.id: item for item in self.items if not item.deleted}
        assert sorted(shown["id"] for shown in page["data"]) == sorted(live)
        for shown in page["data"]:
            assert (shown["preview"] is not None) == shown["storage"]["available"]
            self._check_shown(shown, live[shown["id"]])
        return list(page["data"])

    def _check_shown(self, shown: dict[str, Any], item: Item) -> None:
        """Check an item that is shown without its body where that cannot be had."""
        if shown["storage"]["available"]:
            check_item(shown, item)
        else:
            assert self._may_be_unavailable(item, item.newest), f"{item.id} should have been shown with its body"
            assert (shown["body"], shown.get("preview"), shown["version"]) == (None, None, item.newest)

    def read_everything(self) -> None:
        """Read every version of every item one by one, and the lists of them; nothing may be unavailable now."""
        self.read_list()
        for item in self.items:
            if not item.deleted:
                data = ok(self.person.api.get(f"/api/content/{item.id}/versions"))["data"]
                numbers = range(item.newest, item.oldest - 1, -1)
                assert [(one["version"], one["change_type"]) for one in data] == [
                    (number, item.versions[number - 1].change_type) for number in numbers
                ]
            for number in range(1, item.newest + 2):
                self.read(item, number)
        trash = ok(self.person.api.get("/api/content", {"deleted": "true", "pageSize": "100"}))["data"]
        assert sorted(shown["id"] for shown in trash) == sorted(item.id for item in self.items if item.deleted)

    def _repeat(self, item: Item, number: int, change_type: str) -> None:
        """Remember a new version with the document of another."""
        same = item.versions[number - 1]
        item.versions.append(Version(same.body, same.tags, change_type))

    def _must_read(self, item: Item) -> None:
        """Read a version whose document was acknowledged just now: it is readable whatever ZeroDB does."""
        tiers.forget_copies()
        check_item(ok(self.person.api.get(f"/api/content/{item.id}")), item)

    def _was_done(self, answer: Any, item: Item, number: int) -> bool:
        """Tell whether a call was carried out that needs the document of a version; if not, check that this could not be had."""
        if answer.status_code != 503:
            ok(answer)
            return True
        refused(answer, 503, "document_unavailable")
        assert int(answer["Retry-After"]) > 0
        assert self._may_be_unavailable(item, number), f"{item.id} should have been readable"
        return False

    def _may_be_unavailable(self, item: Item, number: int) -> bool:
        if self.world.reads_backup or not self.world.in_trouble:
            return False
        row = next(row for row in tiers.versions(item.id) if row.version == number)
        with system_scope("a test looks"):
            spooled = SpooledDocument.objects.filter(content_id=UUID(item.id), sha256=row.sha256)
            return not spooled.exists()


def check_item(shown: dict[str, Any], item: Item, number: int | None = None) -> None:
    """Check that an item is shown as it was written, to the byte."""
    number = number or item.newest
    wanted = item.versions[number - 1]
    assert (shown["id"], shown["version"]) == (item.id, number)
    assert (shown["body"], tuple(shown["tags"])) == (wanted.body, wanted.tags)
    assert shown["storage"]["size_bytes"] == len(wanted.body.encode())
