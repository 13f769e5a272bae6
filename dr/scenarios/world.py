"""The data of a scenario, made by the product's own operations, and the carriers that bring it to the other tiers."""

import hashlib
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from string import ascii_lowercase
from typing import Any
from uuid import UUID, uuid4

from django.conf import settings
from django.db import connection, connections
from django.utils import timezone
from uuid_utils.compat import uuid7

from content import documents, operations, queries, records, uploader
from content.media import operations as media_operations
from content.media import references
from content.media.references import Reference
from content.media.uploads import Received
from content.models import Change, SpooledDocument, SpooledRecord
from dr import media_copies, sync
from dr.scenarios.book import Book, digest_of
from dr.scenarios.scene import ScenarioFailed, Scene, expect
from engarde.accounts import operations as account_operations
from engarde.accounts import queries as account_queries
from engarde.common.problems import Problem
from engarde.common.scopes import system_scope, tenant_scope
from quotas import charging
from quotas import operations as quota_operations
from quotas.operations import Limits
from quotas.usage import Count

BATCH = 100
WORDS_A_BODY = 330  # about 2 KB
MOST_MEDIA = 200
STORAGE_LIMIT = 7 * 1024**4
TYPES = ("post", "article", "ad", "tweet")
DRAIN_SECONDS = 60.0
DRAIN_SECONDS_AN_ITEM = 0.2
PAUSE_SECONDS = 0.1
READ_WITHIN_SECONDS = 60.0
RPO = "SELECT max(extract(epoch FROM acked_at - changed_at)) FROM content_changes WHERE changed_at >= %s AND xid > 0"


@dataclass(frozen=True, slots=True)
class Inhabitant:
    """A tenant with an owner, a brand, a key, limits of its own, and the book of its items."""

    tenant_id: UUID
    owner_id: UUID
    email: str
    password: str
    api_key: str
    book: Book


@dataclass(frozen=True, slots=True)
class World:
    """The tenants of a scenario.

    Attributes:
        began_at: by PostgreSQL's clock; changes from then on are the scenario's.
    """

    began_at: datetime
    main: Inhabitant
    other: Inhabitant
    chance: random.Random


def create(scene: Scene) -> World:
    """Make two tenants and their items, while the carriers run, and wait until every tier has everything.

    Raises:
        ScenarioFailed: the carriers do not catch up.
    """
    began_at, chance = database_time(), random.Random(secrets.randbits(64))  # noqa: S311 -- texts, not secrets
    with scene.step("make data"), _carriers():
        world = World(began_at, new_inhabitant("main"), new_inhabitant("other"), chance)
        write(world, world.main, scene.items)
        write(world, world.other, max(2, scene.items // 4))
    with scene.step("upload and back up the rest"):
        drain(scene)
    scene.measures["rpo_seconds"] = observed_rpo(world)
    return world


def new_inhabitant(name: str) -> Inhabitant:
    """Make a tenant whose owner has a password and a key, and whose plan's limit is overridden."""
    email, password = f"{name}-{secrets.token_hex(4)}@example.com", secrets.token_urlsafe(16)
    new = quota_operations.create_tenant(
        name=f"The {name} studio",
        tier="professional",
        email=email,
        password=password,
        brand_name=f"The {name} brand",
        storage_limit=None,
        now=timezone.now(),
    )
    account_operations.create_brand(tenant_id=new.tenant.id, name="A second brand")
    with tenant_scope(new.tenant.id):
        quota_operations.override_limits(
            tenant_id=new.tenant.id, limits=Limits(storage_bytes=STORAGE_LIMIT, reason="A drill"), now=timezone.now()
        )
    return Inhabitant(new.tenant.id, new.owner.id, email, password, new.api_key, Book(new.tenant.id))


def write(world: World, who: Inhabitant, items: int) -> None:
    """Write items: some with several versions, some in the trash, some with media, and note all in the book."""
    for start in range(0, items, BATCH):
        texts = [draft(world.chance) for _ in range(min(BATCH, items - start))]
        ids = create_many(who, texts)
        for place, content_id in enumerate(ids):
            live_through(world, who, content_id, texts[place], start + place)


def draft(chance: random.Random) -> dict[str, Any]:
    """Return the fields of a new item."""
    return {
        "title": " ".join(_words(chance, 6)).capitalize(),
        "body": " ".join(_words(chance, WORDS_A_BODY)),
        "type": chance.choice(TYPES),
        "status": "draft",
        "tags": _words(chance, 2),
        "platforms": ["web"],
        "hashtags": ["#drill"],
        "metadata": {"number": chance.randrange(10**6)},
        "media": [],
    }


def _words(chance: random.Random, count: int) -> list[str]:
    return ["".join(chance.choices(ascii_lowercase, k=chance.randint(3, 8))) for _ in range(count)]


def create_many(who: Inhabitant, texts: Sequence[dict[str, Any]]) -> list[UUID]:
    """Create items in one transaction and return their ids."""
    now, ids = timezone.now(), [uuid7() for _ in texts]
    with operations.named_conflicts(), tenant_scope(who.tenant_id):
        made = operations.write_new(tenant_id=who.tenant_id, author_id=who.owner_id, contents=texts, now=now, ids=ids)
        charging.charge(tenant_id=who.tenant_id, now=now, added=[operations.sized(item) for item in made])
    for item, sent in zip(made, texts, strict=True):
        who.book.note(item, sent)
    return ids


def live_through(world: World, who: Inhabitant, content_id: UUID, sent: dict[str, Any], number: int) -> None:
    """Have an item go through what its number says: changes, a file here and one elsewhere, the trash."""
    if number % 4 == 1:
        sent = edit(who, content_id, sent, {"body": draft(world.chance)["body"]})
    if number % 8 == 5:
        sent = edit(who, content_id, sent, {"status": "published", "title": draft(world.chance)["title"]})
    if number % 10 == 3 and number // 10 < MOST_MEDIA:
        sent = refer(who, content_id, attach(who, content_id, sent))
    if number % 6 == 2:
        trash(who, content_id)


def edit(who: Inhabitant, content_id: UUID, sent: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Change an item and return all that it was sent as."""
    written = operations.update_content(
        tenant_id=who.tenant_id, author_id=who.owner_id, content_id=content_id, changes=changes, now=timezone.now()
    )
    who.book.note(written.item, sent | changes)
    return sent | changes


def trash(who: Inhabitant, content_id: UUID) -> None:
    """Move an item to the trash."""
    written = operations.delete_content(
        tenant_id=who.tenant_id, author_id=who.owner_id, content_id=content_id, now=timezone.now()
    )
    who.book.note(written.item)


def attach(who: Inhabitant, content_id: UUID, sent: dict[str, Any]) -> dict[str, Any]:
    """Store a text file for an item and return all that the item was sent as."""
    content = secrets.token_hex(512).encode()
    path = Path(settings.MEDIA_INCOMING_DIR) / str(uuid4())
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(content)
    received = Received(path, "notes.txt", len(content), hashlib.sha256(content).digest(), content_id)
    try:
        stored = media_operations.store_media(
            tenant_id=who.tenant_id, author_id=who.owner_id, received=received, now=timezone.now()
        )
    finally:
        received.discard()
    [item] = documents_of(who, [content_id])
    sent = sent | {"media": [str(stored.media.id)]}
    who.book.note(item, sent)
    return sent


def refer(who: Inhabitant, content_id: UUID, sent: dict[str, Any]) -> dict[str, Any]:
    """Have an item use a file that is elsewhere, too, and return all that it was sent as."""
    now, url = timezone.now(), f"https://example.com/{content_id}.png"
    reference = Reference(uuid7(), content_id, "photo.png", "image/png", "image", url, None, now)
    with tenant_scope(who.tenant_id):
        references.write_references(tenant_id=who.tenant_id, references=[reference])
        charging.charge(tenant_id=who.tenant_id, now=now, media=Count(1, 0))
    return edit(who, content_id, sent, {"media": [*sent["media"], str(reference.id)]})


def documents_of(who: Inhabitant, ids: Sequence[UUID]) -> list[Any]:
    """Return items with their documents, each as a reader would get it.

    Raises:
        NotFound, DocumentUnavailable: one of them cannot be read.
    """
    return [queries.get_item(tenant_id=who.tenant_id, content_id=one, trashed=None) for one in ids]


# Carriers


def carry(clock: Callable[[], datetime] = timezone.now) -> bool:
    """Run each carrier once and tell whether any of them had something to do."""
    store = documents.document_store()
    if store is None:
        return bool(sync.run_pass(now=clock).rows)
    sent = uploader.run_pass(store=store, now=timezone.now)
    told = records.run_pass(store=store, now=timezone.now)
    return not sent.is_idle or not told.is_idle or bool(sync.run_pass(now=clock).rows)


@contextmanager
def _carriers() -> Iterator[None]:
    """Run the carriers beside what is written, as the platform does."""
    stop, failures = threading.Event(), list[BaseException]()

    def run() -> None:
        try:
            while not stop.is_set():
                if not carry():
                    stop.wait(PAUSE_SECONDS)
        except Exception as error:  # noqa: BLE001 -- told by the thread that waits for this one
            failures.append(error)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, name="carriers", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failures:
        raise failures[0]


def drain(scene: Scene, clock: Callable[[], datetime] = timezone.now) -> None:
    """Run the carriers until every document is in ZeroDB and every change in the backup.

    Raises:
        ScenarioFailed: they do not get there in a bounded time.
    """
    deadline = time.monotonic() + DRAIN_SECONDS + DRAIN_SECONDS_AN_ITEM * scene.items
    while True:
        got_on, left = carry(clock), unfinished()
        if not any(left):
            _copy_media()
            return
        expect(time.monotonic() < deadline, f"documents, records and changes that did not get through: {left}")
        time.sleep(0 if got_on else PAUSE_SECONDS)


def _copy_media() -> None:
    """Copy media files to the second storage, as the platform does within minutes: scenarios of many items take longer."""
    while media_copies.run_pass(now=timezone.now).copied:
        pass


def unfinished() -> tuple[int, int, int]:
    """Return how many documents, records and changes are still on their way."""
    with system_scope("count what is on its way"):
        return (
            SpooledDocument.objects.filter(uploaded_at=None).count(),
            SpooledRecord.objects.count(),
            Change.objects.filter(acked_at=None).count(),
        )


def observed_rpo(world: World) -> float:
    """Return the longest time in seconds between a change of the scenario's and its acknowledgement by the backup."""
    with system_scope("measure the RPO"), connection.cursor() as cursor:
        cursor.execute(RPO, [world.began_at])
        return round(float(cursor.fetchone()[0] or 0), 3)


def database_time() -> datetime:
    """Return the time by PostgreSQL's clock, by which changes are dated."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        found: datetime = cursor.fetchone()[0]
        return found


# People


def require_entry(who: Inhabitant) -> None:
    """See that the owner still logs in with the password, and that the key is still good.

    Raises:
        ScenarioFailed: one of them is not let in.
    """
    try:
        account_operations.log_in(email=who.email, password=who.password, now=timezone.now())
    except Problem as error:
        raise ScenarioFailed(f"the owner cannot log in: {error}") from error
    key = account_queries.live_api_key(text=who.api_key, now=timezone.now())
    expect(key is not None and key.tenant_id == who.tenant_id, "the API key is not good any more")


def require_reads(who: Inhabitant, ids: Sequence[UUID]) -> None:
    """See that items are answered as a reader would get them, from whichever tier has them.

    Raises:
        ScenarioFailed: one of them cannot be read or is not what was sent.
    """
    documents.start_afresh()
    for content_id in ids:
        item = _read_patiently(who, content_id)
        expect(digest_of(item.fields) == who.book.entries[content_id].digest, f"item {content_id} reads differently")


def _read_patiently(who: Inhabitant, content_id: UUID) -> Any:
    """Read an item as a client does that is told to try again soon: the backup is left alone for a while after it was slow once.

    Raises:
        ScenarioFailed: it could not be read within a minute.
    """
    deadline = time.monotonic() + READ_WITHIN_SECONDS
    while True:
        try:
            return documents_of(who, [content_id])[0]
        except Problem as error:
            if time.monotonic() > deadline:
                raise ScenarioFailed(f"item {content_id} cannot be read: {error}") from error
            time.sleep(1)
            documents.start_afresh()
