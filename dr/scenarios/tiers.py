"""ZeroDB and BigQuery as a drill needs them beyond what the platform does: to damage, to empty and to remove its own places."""

from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any
from urllib.parse import quote
from uuid import UUID

from django.conf import settings

from content.stores.base import COLLECTIONS, DOCUMENTS, Document, DocumentKey, StoreRejected
from content.stores.budget import Urgency
from content.stores.zerodb import ZeroDBStore
from dr.archives.bigquery import BigQueryArchive
from dr.scenarios import places

CONTENT_TABLE = "content_storage_dr"
CLOSED_PORT = "http://127.0.0.1:9"
STATEMENT_SECONDS = 120.0
PATIENT = {"read_timeout": 60.0, "longest_answer": 120.0}  # removing a collection takes as long as it is large


class DrillStore(ZeroDBStore):
    """A drill's own collections in ZeroDB."""

    def __init__(self, place: str) -> None:
        """Point at the collections of a drill.

        Raises:
            NotThrowAway: the place is no drill's.
        """
        prefix = f"{places.require_throw_away(place)}_"
        super().__init__(**{**settings.CONTENT_STORE_OPTIONS, **PATIENT, "collection_prefix": prefix})

    def empty(self) -> int:
        """Lose every row of every collection, as a disaster would, and return how many there were."""
        return sum(self._empty(collection) for collection in COLLECTIONS)

    def _empty(self, collection: str) -> int:
        lost = 0
        while keys := sorted({row.key for row in self.scan(collection).rows}):
            lost += self.delete_rows(collection, keys)
        return lost

    def keys(self, collection: str = DOCUMENTS) -> Iterator[str]:
        """Yield the keys that a collection has rows for."""
        after: str | None = ""
        while after is not None:
            page = self.scan(collection, after=after)
            yield from dict.fromkeys(row.key for row in page.rows)
            after = page.next_after

    def lose(self, keys: Collection[DocumentKey]) -> None:
        """Lose documents."""
        self.delete_rows(DOCUMENTS, [str(key) for key in keys])

    def flip_byte(self, key: DocumentKey, *, tenant_id: UUID, version: int) -> None:
        """Change one byte of a document, behind everybody's back."""
        record = {
            "content_id": str(key.content_id),
            "version": version,
            "sha256": key.sha256,
            "document": flipped(self.get_many([key])[key]),
        }
        self.put_record(DOCUMENTS, str(key), tenant_id=tenant_id, record=record, maybe_stored=True)

    def add_stray(self, *, tenant_id: UUID, content_id: UUID) -> None:
        """Store a document that nothing in PostgreSQL knows."""
        text = '{"body":"of nobody"}'
        self.put(Document(tenant_id=tenant_id, key=DocumentKey.of(content_id, text), version=1, text=text))

    def drop(self) -> None:
        """Remove the collections."""
        for collection in COLLECTIONS:
            self._drop(self._prefix + collection)

    def collection_names(self) -> set[str]:
        """Return the names of all collections of the project, others' too."""
        return self._collection_names()

    def drop_left_over(self, *, now: datetime) -> int:
        """Remove collections that drills left behind long ago, and return how many."""
        found = [name for name in self._collection_names() if _is_left_over_collection(name, now)]
        for name in found:
            self._drop(name)
        return len(found)

    def _drop(self, name: str) -> None:
        try:
            self._call_with_retries("DELETE", f"/{quote(name, safe='')}", urgency=Urgency.UPLOAD)
        except StoreRejected as error:
            if error.status != 404:
                raise


def _is_left_over_collection(name: str, now: datetime) -> bool:
    ours = next((collection for collection in COLLECTIONS if name.endswith(f"_{collection}")), None)
    return ours is not None and places.is_left_over(name.removesuffix(f"_{ours}"), now=now)


class DrillArchive(BigQueryArchive):
    """A drill's own dataset in BigQuery."""

    def __init__(self, place: str) -> None:
        """Point at the dataset of a drill.

        Raises:
            NotThrowAway: the place is no drill's.
        """
        own = {"dataset": places.require_throw_away(place), "scratch_dataset": place, "read_only": False}
        super().__init__(**settings.DR_ARCHIVE_OPTIONS | own)

    def run(self, statement: str) -> list[Any]:
        """Run a statement in which {table} stands for the table of content, and return its rows."""
        table = f"`{self.project}.{self.dataset}.{CONTENT_TABLE}`"
        return list(self._rest().query(statement.format(table=table)).result(timeout=STATEMENT_SECONDS))

    def dataset_names(self) -> set[str]:
        """Return the names of all datasets of the project, others' too."""
        return {str(found.dataset_id) for found in self._rest().list_datasets(timeout=STATEMENT_SECONDS)}

    def drop(self) -> None:
        """Remove the dataset, if it is there."""
        self._drop(self.dataset)

    def drop_left_over(self, *, now: datetime) -> int:
        """Remove datasets that drills left behind long ago, and return how many."""
        left_over = [name for name in self.dataset_names() if places.is_left_over(name, now=now)]
        for name in left_over:
            self._drop(name)
        return len(left_over)

    def _drop(self, name: str) -> None:
        dataset = f"{self.project}.{places.require_throw_away(name)}"
        self._rest().delete_dataset(dataset, delete_contents=True, not_found_ok=True, timeout=STATEMENT_SECONDS)


def flipped(text: str) -> str:
    """Return a text with one byte of its middle changed, which is still a text."""
    place = next(place for place in range(len(text) // 2, len(text)) if text[place].isalpha())
    return text[:place] + ("a" if text[place] != "a" else "b") + text[place + 1 :]


def unreachable_options() -> dict[str, Any]:
    """Return options of an archive whose addresses lead nowhere."""
    return {**settings.DR_ARCHIVE_OPTIONS, "emulator_host": CLOSED_PORT, "emulator_grpc_host": CLOSED_PORT[7:]}
