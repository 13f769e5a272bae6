"""PostgreSQL against the archive: sums first, and rows only where these differ."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import orjson

from dr.archives.base import CONTENT, Archive, ArchiveRecord, GroupSum
from dr.records import is_intact
from dr.verification import postgres
from dr.verification.faults import BIGQUERY, EXTRA, MAX_FAULTS, MISMATCHED, MISSING, POSTGRES, Evidence, Fault, Tally
from dr.verification.merging import in_chunks, side_by_side
from dr.verification.postgres import Row

LOOKED_UP = 500
GroupKey = tuple[str, date | None]
RowKey = tuple[UUID, int]
Kind = tuple[UUID, str]
"""A tenant, and an entity type."""


@dataclass(frozen=True, slots=True)
class Stray:
    """A record that PostgreSQL has nothing for where it should stand; without its document, so that many take little memory."""

    key: RowKey
    sha256: str
    facts: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Groups:
    """A tenant's sums on both sides."""

    here: dict[GroupKey, GroupSum]
    there: dict[GroupKey, GroupSum]

    @property
    def differing(self) -> list[GroupKey]:
        """The groups that are to be looked into."""
        return [key for key in self.here | self.there if not self._agree(key)]

    def _agree(self, key: GroupKey) -> bool:
        here, there = self.here.get(key), self.there.get(key)
        if here is None or there is None:
            return False
        return (here.rows, here.lanes, there.damaged) == (there.rows, there.lanes, 0)


class Comparison:
    """The comparison of one tenant's rows, or of the platform's own, with the archive."""

    def __init__(self, *, archive: Archive, tenant_id: UUID, tally: Tally, since: datetime) -> None:
        """Prepare; nothing is read yet.

        Args:
            since: a time before anything of the archive is read: what was acknowledged later may not be in what is read.
        """
        self._archive = archive
        self._tenant_id = tenant_id
        self._tally = tally
        self._since = since
        self._lacking: dict[tuple[str, RowKey], Fault] = {}
        self._elsewhere: set[tuple[str, RowKey]] = set()

    def run(self, groups: Groups) -> None:
        """Compare the groups that differ, adding what is wrong to the tally.

        Raises:
            ArchiveUnavailable, ArchiveRefused: the archive does not give its rows.
        """
        for entity_type, day in sorted(groups.differing, key=str):
            self._compare(entity_type, day)
        self._tally.add(fault for key, fault in self._lacking.items() if key not in self._elsewhere)

    def _compare(self, entity_type: str, day: date | None) -> None:
        records = self._archive.group(tenant_id=self._tenant_id, entity_type=entity_type, day=day)
        rows = postgres.rows_of(tenant_id=self._tenant_id, entity_type=entity_type, day=day)
        pairs = side_by_side(records, rows, lambda record: (record.entity_id, record.version), lambda row: row.key)
        for suspects in in_chunks(_suspects((self._tenant_id, entity_type), pairs), LOOKED_UP):
            settled = self._settled(entity_type, {_entity_of(suspect) for suspect in suspects})
            doubtful = [suspect for suspect in suspects if _entity_of(suspect) not in settled]
            self._tally.waiting += len(suspects) - len(doubtful)
            self._note([one for one in doubtful if isinstance(one, Fault)])
            self._place(entity_type, [one for one in doubtful if isinstance(one, Stray)])

    def _settled(self, entity_type: str, entity_ids: set[UUID]) -> set[UUID]:
        """Return the entities that need no explanation: a change of theirs is on its way."""
        with postgres.scope_of(self._tenant_id):
            return postgres.on_their_way(
                tenant_id=self._tenant_id, entity_type=entity_type, entity_ids=entity_ids, since=self._since
            )

    def _note(self, faults: Iterable[Fault]) -> None:
        """Take faults down; what the archive lacks waits until all is read, as damaged facts put a record elsewhere."""
        for fault in faults:
            if fault.kind == MISSING and fault.tier == BIGQUERY and len(self._lacking) < MAX_FAULTS:
                self._lacking[fault.entity_type, (fault.entity_id, fault.version)] = fault
            else:
                self._tally.add([fault])

    def _place(self, entity_type: str, strays: Sequence[Stray]) -> None:
        """Find out what strays are: of another day, or of nothing that PostgreSQL has."""
        if not strays:
            return
        keys = [stray.key for stray in strays]
        with postgres.scope_of(self._tenant_id):
            rows = postgres.rows_by_key(tenant_id=self._tenant_id, entity_type=entity_type, keys=keys)
            items = postgres.items_there(tenant_id=self._tenant_id, content_ids={entity_id for entity_id, _ in keys})
        for stray in strays:
            self._explain((self._tenant_id, entity_type), stray, rows.get(stray.key), has_item=stray.key[0] in items)

    def _explain(self, kind: Kind, stray: Stray, row: Row | None, *, has_item: bool) -> None:
        if row is None:
            self._note([_without_row(kind, stray, has_item=has_item)])
            return
        self._elsewhere.add((kind[1], stray.key))
        fault = _misplaced(kind, row, stray)
        self._note([fault] if fault else [])


def read_groups(*, archive: Archive, tenant_id: UUID, deep: bool, here: Sequence[GroupSum]) -> Groups:
    """Read the archive's sums of a tenant, or of the platform, beside those of PostgreSQL.

    Raises:
        ArchiveUnavailable, ArchiveRefused: the archive does not give its sums.
    """
    there = archive.sums(tenant_id=tenant_id, deep=deep)
    return Groups(
        {(group.entity_type, group.day): group for group in here},
        {(group.entity_type, group.day): group for group in there},
    )


def _suspects(kind: Kind, pairs: Iterator[tuple[ArchiveRecord | None, Row | None]]) -> Iterator[Fault | Stray]:
    for record, row in pairs:
        suspect = _suspect(kind, record, row)
        if suspect is not None:
            yield suspect


def _suspect(of: Kind, record: ArchiveRecord | None, row: Row | None) -> Fault | Stray | None:
    if record is None:
        if row is None or not row.is_comparable:
            return None
        return _fault(of, MISSING, BIGQUERY, row.key, "it is not backed up")
    if row is None:
        evidence = Evidence.of(record)
        return Stray((record.entity_id, record.version), record.sha256, record.facts, evidence)
    if not is_intact(record):
        return _damaged(of, row.key, Evidence.of(record))
    problem = _difference(record.entity_type, row, record.sha256, record.facts)
    return _fault(of, MISMATCHED, POSTGRES, row.key, problem) if problem else None


def _misplaced(of: Kind, row: Row, stray: Stray) -> Fault | None:
    """Return what is wrong with a record that stands under another day than its row."""
    if not row.is_comparable:
        return None
    if not stray.evidence.is_intact:
        return _damaged(of, row.key, stray.evidence)
    return _fault(of, MISMATCHED, POSTGRES, row.key, "it differs from what was backed up: its facts")


def _damaged(of: Kind, key: RowKey, evidence: Evidence) -> Fault:
    return _fault(of, MISMATCHED, BIGQUERY, key, "the record is not what was sent", evidence)


def _without_row(of: Kind, stray: Stray, *, has_item: bool) -> Fault:
    if not stray.evidence.is_intact:
        problem = "a damaged record of what PostgreSQL does not have"
        return _fault(of, EXTRA, BIGQUERY, stray.key, problem, stray.evidence)
    if has_item:
        problem = "the backup has a version that PostgreSQL lacks"
        return _fault(of, MISSING, POSTGRES, stray.key, problem, stray.evidence)
    return _fault(of, EXTRA, POSTGRES, stray.key, "only the backup has it", stray.evidence)


def _difference(entity_type: str, row: Row, sha256: str, facts: str) -> str:
    """Return in what a row differs from an intact record, or nothing."""
    if entity_type == CONTENT and row.sha256 != sha256:
        return "it differs from what was backed up: its document's checksum"
    differing = differing_facts(row.facts, facts)
    return f"it differs from what was backed up: {', '.join(differing)}" if differing else ""


def differing_facts(here: str, there: str) -> list[str]:
    """Return the names under which two JSON objects differ.

    What only one has does not count: a column that came, or went, since. Times are compared as instants.
    """
    if here == there:
        return []
    one, other = orjson.loads(here), orjson.loads(there)
    if not isinstance(one, dict) or not isinstance(other, dict):
        return ["its facts"]
    return sorted(name for name in one.keys() & other.keys() if _instant(one[name]) != _instant(other[name]))


def _instant(value: Any) -> Any:
    """Return the instant that a text names, in one form for all spellings; any other value as it is."""
    if not isinstance(value, str) or "T" not in value:
        return value
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return value
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _entity_of(suspect: Fault | Stray) -> UUID:
    return suspect.entity_id if isinstance(suspect, Fault) else suspect.key[0]


def _fault(of: Kind, kind: str, tier: str, key: RowKey, problem: str, evidence: Evidence | None = None) -> Fault:
    return Fault(kind, tier, *of, *key, problem, evidence=evidence)
