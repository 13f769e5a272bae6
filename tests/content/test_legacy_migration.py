"""The old platform's rows become content: all of them or a reason why not, once, however often it is broken off."""

import hashlib
import json
import random
from collections.abc import Iterator, Sequence
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from content import erasure, operations, queries
from content.legacy import convert, files, migrate, sample, source
from content.legacy.convert import Unusable
from content.legacy.migrate import Wanted
from content.legacy.source import ASSETS, ITEMS, Selection
from content.media import queries as media_queries
from content.media.storages import MediaUnavailable
from content.media.uploads import Received
from content.models import ContentItem, Delivery, LegacyProblem, LegacyRun, Webhook
from engarde.accounts.models import Membership, Tenant, User
from engarde.common.scopes import system_scope, tenant_scope
from quotas import operations as quota_operations
from quotas import queries as quota_queries
from quotas.operations import Limits
from tests.people import Person

ITEMS_COMMAND = "migrate_content_items_to_zerodb"
ASSETS_COMMAND = "migrate_campaign_assets_to_zerodb"
OLD_TIMES = {"created_at": "2023-05-01 10:00:00", "updated_at": "2024-02-29 23:59:59.5"}


@pytest.fixture(autouse=True)
def schema(database: None, settings: Any) -> Iterator[str]:
    """A schema of this test's own, with empty old tables."""
    settings.LEGACY_SCHEMA = f"legacy_{uuid4().hex[:8]}"
    execute(f"CREATE SCHEMA {settings.LEGACY_SCHEMA}")
    for table, columns in sample.TABLES.items():
        shape = ", ".join(f"{name} {kind}" for name, kind in columns.items())
        execute(f"CREATE TABLE {settings.LEGACY_SCHEMA}.{table} ({shape})")
    yield settings.LEGACY_SCHEMA
    execute(f"DROP SCHEMA {settings.LEGACY_SCHEMA} CASCADE")


def execute(statement: str, values: Sequence[Any] = ()) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


class Old:
    """Old rows of one tenant, put into the old tables one by one."""

    def __init__(self, schema: str, tenant: str | None = None) -> None:
        self.schema, self.tenant = schema, tenant or str(uuid4())
        self.brand, self.user = str(uuid4()), str(uuid4())

    def put(self, table: str, **columns: Any) -> str:
        row = {"id": str(uuid4()), **columns}
        names, marks = ", ".join(row), ", ".join(["%s"] * len(row))
        execute(f"INSERT INTO {self.schema}.{table} ({names}) VALUES ({marks})", list(row.values()))
        return row["id"]

    def owner(self, *, tier: str = "professional") -> "Old":
        self.put("tenants", id=self.tenant, name="An old studio", plan_tier=tier)
        self.put("brands", id=self.brand, tenant_id=self.tenant, name="An old brand")
        self.put("users", id=self.user, email=f"{self.user}@example.com", first_name="Ada", last_name="Old")
        return self

    def item(self, **columns: Any) -> str:
        row = {
            "tenant_id": self.tenant,
            "brand_id": self.brand,
            "user_id": self.user,
            "title": "An old post",
            "content_body": "<p>Old words — ünïcode 🎉</p>",
            "content_type": "post",
            "status": "published",
            "content_metadata": json.dumps({"tags": ["old"], "platforms": ["web"], "media_urls": ["x"], "note": 1}),
            **OLD_TIMES,
        }
        return self.put(ITEMS, **row | columns)

    def asset(self, **columns: Any) -> str:
        row = {
            "tenant_id": self.tenant,
            "brand_id": self.brand,
            "user_id": self.user,
            "asset_name": "An old picture",
            "asset_type": "image",
            "headline_text": "Heading",
            "cta_text": "Buy",
            "file_url": "https://files.legacy.example/a/picture.png",
            "mime_type": "image/png",
            "file_size_bytes": 123,
            "tags": '["summer"]',
            **OLD_TIMES,
        }
        return self.put(ASSETS, **row | columns)


@pytest.fixture
def old(schema: str) -> Old:
    return Old(schema).owner()


def run(command: str, *options: str) -> dict[str, Any]:
    """Run a command and return its report, whatever its exit code."""
    out, exit_code = StringIO(), 0
    try:
        call_command(command, "--json", "--no-files", *options, stdout=out)
    except SystemExit as end:
        exit_code = int(end.code or 0)
    report: dict[str, Any] = json.loads(out.getvalue())
    assert exit_code == bool(report["failed"])
    assert report["total"] == report["created"] + report["unchanged"] + report["failed"]
    assert report["failed"] == len(report["errors"])
    return report


def codes(report: dict[str, Any]) -> dict[str, str]:
    return {error["id"]: error["code"] for error in report["errors"]}


def item_of(old: Old, content_id: str) -> Any:
    return queries.get_item(tenant_id=UUID(old.tenant), content_id=UUID(content_id))


# Arriving


def test_an_old_item_comes_with_everything_it_had(old: Old) -> None:
    old_id = old.item()

    report = run(ITEMS_COMMAND)

    item = item_of(old, old_id)
    assert (report["created"], report["bytes"]) == (1, len("<p>Old words — ünïcode 🎉</p>".encode()))
    assert item.fields["body"] == "<p>Old words — ünïcode 🎉</p>"
    assert (item.title, item.status, item.fields["tags"], item.fields["platforms"]) == (
        "An old post",
        "published",
        ["old"],
        ["web"],
    )
    assert item.fields["metadata"] == {
        "media_urls": ["x"],
        "note": 1,
        "imported_from": "content_items",
        "legacy_id": old_id,
    }
    assert item.created_at.isoformat() == "2023-05-01T10:00:00+00:00"
    assert item.updated_at.isoformat() == "2024-02-29T23:59:59.500000+00:00"
    assert str(item.brand_id) == old.brand
    with tenant_scope(UUID(old.tenant)):
        row = ContentItem.objects.get(id=old_id)
        [version] = row.versions.all()
    assert row.author_id == UUID(old.user)
    assert (version.created_at, version.changed_by) == (item.updated_at, UUID(old.user))
    assert report["checksums"] == {"compared": 1, "equal": 1, "different": 0}


def test_a_tenant_comes_with_its_plan_its_brands_and_authors_whom_nobody_lets_in_yet(old: Old) -> None:
    old.put("brands", tenant_id=old.tenant, name="Another brand")
    old.item()

    report = run(ITEMS_COMMAND)

    assert report["tenants"][old.tenant]["name"] == "An old studio"
    with tenant_scope(UUID(old.tenant)):
        tenant = Tenant.objects.get(id=old.tenant)
        assert tenant.brands.count() == 2
        membership = Membership.objects.get(tenant=tenant, user_id=old.user)
        assert (membership.role, membership.accepted_at) == ("editor", None)
        assert quota_queries.usage_in_scope(tenant_id=tenant.id).plan_tier == "professional"
    author = User.objects.get(id=old.user)
    assert (author.email, author.first_name, author.has_usable_password()) == (f"{old.user}@example.com", "Ada", False)


def test_rows_of_a_tenant_that_is_here_become_readable_to_it_and_to_nobody_else(
    schema: str, alice: Person, charlie: Person
) -> None:
    old_id = Old(schema, str(alice.tenant_id)).item(brand_id=None, user_id=None)

    run(ITEMS_COMMAND)

    answer = alice.api.get(f"/api/content/{old_id}")
    assert answer.status_code == 200
    assert answer.json()["metadata"]["legacy_id"] == old_id
    assert charlie.api.get(f"/api/content/{old_id}").status_code == 404


def test_texts_of_an_asset_stand_below_each_other(old: Old) -> None:
    old_id = old.asset(
        asset_type="ad_copy", ad_copy_text="Copy", description="Words\nmore", cta_text=None, file_url=None
    )

    run(ASSETS_COMMAND)

    item = item_of(old, old_id)
    assert item.fields["body"] == "Heading\n\nCopy\n\nWords\nmore"
    assert (item.fields["type"], item.fields["tags"], item.fields["media"]) == ("post", ["summer"], [])
    assert item.fields["metadata"]["asset_type"] == "ad_copy"


def test_a_file_that_stays_elsewhere_is_a_media_entry_of_no_bytes(old: Old) -> None:
    old_id = old.asset(asset_type="video", mime_type="video/mp4")

    report = run(ASSETS_COMMAND)

    item = item_of(old, old_id)
    [media_id] = item.fields["media"]
    media = media_queries.get_media(tenant_id=UUID(old.tenant), media_id=UUID(media_id))
    assert media.external_url == "https://files.legacy.example/a/picture.png"
    assert (media.size_bytes, media.file_type, media.mime_type, media.file_name) == (
        0,
        "video",
        "video/mp4",
        "picture.png",
    )
    assert str(media.content_id) == old_id
    usage = quota_queries.usage_of(tenant_id=UUID(old.tenant))
    assert (usage.content_items, usage.media_files) == (1, 1)
    assert usage.used_bytes == report["bytes"] == len("Heading\n\nBuy")
    assert (report["media"], report["media_fetched"]) == (1, 0)


def test_a_file_that_can_be_fetched_is_stored_and_counted(
    old: Old, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    old_id = old.asset(asset_type="document", mime_type="text/plain", file_url="https://files.legacy.example/notes.txt")

    def fetch(_self: Any, url: str) -> Any:
        assert url == "https://files.legacy.example/notes.txt"
        path = tmp_path / uuid4().hex
        path.write_bytes(b"old notes")
        return Received(path, "notes.txt", 9, hashlib.sha256(b"old notes").digest(), None)

    monkeypatch.setattr(files.Fetcher, "fetch", fetch)
    out = StringIO()
    call_command(ASSETS_COMMAND, "--json", stdout=out)

    report = json.loads(out.getvalue())
    [media_id] = item_of(old, old_id).fields["media"]
    media = media_queries.get_media(tenant_id=UUID(old.tenant), media_id=UUID(media_id))
    assert (media.size_bytes, media.external_url, str(media.content_id)) == (9, "", old_id)
    assert report["media_fetched"] == 1
    usage = quota_queries.usage_of(tenant_id=UUID(old.tenant))
    assert usage.used_bytes == 9 + report["bytes"]


def test_deleted_assets_stay_behind_and_are_counted(old: Old) -> None:
    old.asset(deleted_at="2024-01-01 00:00:00")

    report = run(ASSETS_COMMAND)

    assert (report["total"], report["deleted_left_behind"]) == (0, 1)


# Ids


def test_an_id_that_is_no_uuid_is_mapped_always_to_the_same(old: Old) -> None:
    old.item(id="post-17")

    run(ITEMS_COMMAND)
    again = run(ITEMS_COMMAND)

    item = item_of(old, str(uuid5(NAMESPACE_URL, "engarde:legacy:content_items:post-17")))
    assert item.fields["metadata"]["legacy_id"] == "post-17"
    assert (again["created"], again["unchanged"]) == (0, 1)


def test_of_an_id_that_both_tables_have_both_rows_come_in_either_order(old: Old) -> None:
    same = old.item(content_body="of the item")
    old.asset(id=same, headline_text="of the asset", cta_text=None)

    assets, items = run(ASSETS_COMMAND), run(ITEMS_COMMAND)

    assert (assets["created"], items["created"]) == (1, 1)
    assert [warning["code"] for warning in assets["warnings"]] == ["id_taken"]
    assert item_of(old, same).fields["body"] == "of the item"


def test_an_id_that_another_tenant_s_item_has_is_refused_and_the_others_come(old: Old, charlie: Person) -> None:
    taken = charlie.api.post("/api/content", {"title": "Charlie's", "type": "post"}).json()["id"]
    old.item(id=taken)
    good = old.item()

    report = run(ITEMS_COMMAND)

    assert codes(report) == {taken: "content_exists"}
    assert item_of(old, good)


def test_ids_that_differ_in_case_only_are_one(old: Old) -> None:
    first = old.item(id=str(uuid4()).replace("0", "a"))
    old.item(id=first.upper())
    good = old.item()

    for size in ("1", "100"):
        report = run(ITEMS_COMMAND, "--batch-size", size)
        assert codes(report) == {first: "doubled_id", first.upper(): "doubled_id"}
        assert item_of(old, good)


@pytest.mark.parametrize("size", ["1", "4", "100"])
def test_of_an_id_that_many_rows_have_none_comes_and_each_is_counted(old: Old, schema: str, size: str) -> None:
    execute(f"ALTER TABLE {schema}.{ITEMS} DROP CONSTRAINT {ITEMS}_pkey")
    execute(f"ALTER TABLE {schema}.{ITEMS} ALTER id DROP NOT NULL")
    doubled = old.item()
    for _ in range(6):
        old.item(id=doubled)
    for _ in range(3):
        old.item()
    old.item(id=None)

    report = run(ITEMS_COMMAND, "--batch-size", size)

    assert (report["total"], report["created"]) == (11, 3)
    assert report["reasons"] == {"doubled_id": 7, "no_id": 1}


# Bad rows

BAD: dict[str, tuple[str, dict[str, Any]]] = {
    "no title": ("no_title", {"title": None}),
    "a blank title": ("no_title", {"title": " \n"}),
    "a long title": ("title_too_long", {"title": "x" * 301}),
    "no type": ("no_type", {"content_type": None}),
    "an unknown type": ("unknown_type", {"content_type": "hologram"}),
    "an unknown status": ("unknown_status", {"status": "lost"}),
    "scheduled for no time": ("no_time", {"status": "scheduled"}),
    "no JSON": ("bad_metadata", {"content_metadata": "{tags: [}"}),
    "no object": ("bad_metadata", {"content_metadata": "[1]"}),
    "no list": ("bad_list", {"content_metadata": '{"tags": {"a": 1}}'}),
    "a long tag": ("bad_list", {"content_metadata": json.dumps({"tags": ["x" * 101]})}),
    "many tags": ("bad_list", {"content_metadata": json.dumps({"tags": ["x"] * 101})}),
    "an unknown brand": ("unknown_brand", {"brand_id": str(uuid4())}),
}


KEPT_AS = {
    "title": "legacy_title",
    "content_type": "legacy_content_type",
    "status": "legacy_status",
    "content_metadata": "legacy_metadata",
    "brand_id": "legacy_brand_id",
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_row_is_named_and_the_good_ones_come(old: Old, kind: str) -> None:
    code, columns = BAD[kind]
    bad, good = old.item(**columns), old.item()

    report = run(ITEMS_COMMAND)

    assert codes(report) == {bad: code}
    assert report["reasons"] == {code: 1}
    assert item_of(old, good)


@pytest.mark.parametrize("kind", BAD)
def test_what_is_mended_comes_with_a_note_and_loses_nothing(old: Old, kind: str) -> None:
    code, columns = BAD[kind]
    bad = old.item(**columns)

    report = run(ITEMS_COMMAND, "--mend")

    assert report["created"] == 1
    assert [warning["code"] for warning in report["warnings"]] == [code]
    item = item_of(old, bad)
    assert item.fields["body"] == "<p>Old words — ünïcode 🎉</p>"
    [(name, value)] = columns.items()
    expected = json.loads(value)["tags"] if code == "bad_list" else value
    if code not in {"no_title", "no_type"}:  # of nothing, nothing is kept
        assert item.fields["metadata"]["legacy_tags" if code == "bad_list" else KEPT_AS[name]] == expected


@pytest.mark.parametrize(
    ("code", "columns"),
    [
        ("no_tenant", {"tenant_id": None}),
        ("unknown_tenant", {"tenant_id": str(uuid4())}),
        ("body_too_large", {"content_body": "x" * (1024**2 + 1)}),
        ("bad_time", {"created_at": "infinity"}),
        ("bad_metadata", {"content_metadata": '{"note": "\\u0000"}'}),
        ("bad_metadata", {"content_metadata": "[" * 30 + "]" * 30}),
        ("bad_metadata", {"content_metadata": '{"a":' * 30 + "1" + "}" * 30}),
    ],
)
def test_what_cannot_be_mended_is_refused_all_the_same(old: Old, code: str, columns: dict[str, Any]) -> None:
    bad = old.item(**columns)

    assert codes(run(ITEMS_COMMAND)) == {bad: code}


def test_what_is_missing_without_harm_is_no_error(old: Old) -> None:
    old.item(content_body=None, content_metadata=None, status=None, brand_id=None, user_id=None, created_at=None)
    old.item(user_id=str(uuid4()), updated_at="2020-01-01 00:00:00")

    report = run(ITEMS_COMMAND)

    assert report["created"] == 2
    assert report["notices"] == {"no_created_at": 1, "unknown_user": 1, "updated_before_created": 1}


@pytest.mark.parametrize(
    "url",
    [
        "https://127.0.0.1/a.png",
        "https://10.0.0.8/a.png",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/a.png",
        "https://localhost/a.png",
        "https://[::ffff:10.0.0.1]/a.png",
    ],
)
def test_a_private_address_is_refused_and_said_to_be(old: Old, url: str) -> None:
    bad = old.asset(file_url=url)

    assert codes(run(ASSETS_COMMAND)) == {bad: "private_address"}
    mended = run(ASSETS_COMMAND, "--mend")
    item = item_of(old, bad)
    assert (mended["media"], item.fields["media"]) == (0, [])
    assert item.fields["metadata"]["legacy_file_url"] == url


def test_a_file_that_leads_to_a_private_address_is_refused(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    bad = old.asset(file_url="https://harmless.example/a.png")

    def refuse(_self: Any, _url: str) -> Any:
        raise files.AddressRefused("redirected to 10.0.0.8")

    monkeypatch.setattr(files.Fetcher, "fetch", refuse)
    out = StringIO()
    with pytest.raises(SystemExit):
        call_command(ASSETS_COMMAND, "--json", stdout=out)

    assert codes(json.loads(out.getvalue())) == {bad: "private_address"}


# Quota


def test_what_does_not_fit_fails_row_by_row_with_a_summary(schema: str, alice: Person) -> None:
    old = Old(schema, str(alice.tenant_id))
    with tenant_scope(alice.tenant_id):
        quota_operations.override_limits(
            tenant_id=alice.tenant_id, limits=Limits(storage_bytes=250, reason="a test"), now=timezone.now()
        )
    for _ in range(3):
        old.item(brand_id=None, content_body="x" * 100)

    dry, report = run(ITEMS_COMMAND, "--dry-run"), run(ITEMS_COMMAND)

    assert set(codes(report).values()) == {"storage_quota_exceeded"}
    assert (dry["created"], dry["failed"]) == (report["created"], report["failed"]) == (2, 1)
    assert report["tenants"][old.tenant]["quota_exceeded"] == 1
    assert quota_queries.usage_of(tenant_id=alice.tenant_id).used_bytes == 200


# Runs


def test_a_dry_run_writes_nothing_and_says_what_would_be(old: Old) -> None:
    old.item()
    old.item(content_type="hologram")

    report = run(ITEMS_COMMAND, "--dry-run")

    assert (report["dry_run"], report["created"], report["failed"]) == (True, 1, 1)
    with system_scope("look"):
        assert not Tenant.objects.filter(id=old.tenant).exists()
    assert not User.objects.filter(id=old.user).exists()
    assert not LegacyRun.objects.filter(counts__tenants__has_key=old.tenant).exists()


def test_a_second_run_changes_nothing_also_of_what_was_edited_here(old: Old) -> None:
    first, second = old.item(), old.item()
    run(ITEMS_COMMAND)
    operations.update_content(
        tenant_id=UUID(old.tenant),
        author_id=None,
        content_id=UUID(first),
        changes={"body": "edited here"},
        now=timezone.now(),
    )
    execute(f"UPDATE {old.schema}.content_items SET content_body = 'edited there' WHERE id = %s", [second])

    report = run(ITEMS_COMMAND)

    assert (report["created"], report["unchanged"], report["bytes"]) == (0, 2, 0)
    assert item_of(old, first).fields["body"] == "edited here"
    assert [(one["id"], one["code"]) for one in report["warnings"]] == [(second, "source_changed")]


def test_a_limit_stops_and_resume_goes_on_to_the_same_end(old: Old) -> None:
    ids = [old.item() for _ in range(7)]

    first = run(ITEMS_COMMAND, "--limit", "3", "--batch-size", "2")
    rest = run(ITEMS_COMMAND, "--resume", "--batch-size", "2")

    assert (first["created"], first["finished"]) == (3, False)
    assert (rest["created"], rest["total"], rest["finished"], rest["resumed"]) == (7, 7, True, True)
    assert all(item_of(old, one) for one in ids)


def test_only_a_tenant_s_rows_are_moved_when_it_is_named(schema: str, old: Old) -> None:
    other = Old(schema).owner()
    old.item()
    other.item()

    report = run(ITEMS_COMMAND, "--tenant", old.tenant.upper())

    assert list(report["tenants"]) == [old.tenant]


class Killed(BaseException):
    """The process ends here."""


POINTS = ("_hold", "_create", "_compare", "_keep", "_count_created")


@pytest.mark.parametrize("seed", range(6))
def test_broken_off_anywhere_and_resumed_it_ends_as_in_one_go(
    schema: str, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    whole, broken = Old(schema).owner(), Old(schema).owner()
    for number in range(23):
        for one in (whole, broken):
            one.item(
                content_body="x" * number,
                content_type="post" if number % 5 else "hologram",
                user_id=str(uuid4()) if number % 7 == 3 else one.user,
            )
    expected = run(ITEMS_COMMAND, "--tenant", whole.tenant, "--batch-size", "4")

    calls = 0
    while True:
        stop_at, after = calls + chance.randint(1, 6), chance.random() < 0.5
        with monkeypatch.context() as patch:
            for name in POINTS:
                patch.setattr(migrate._Migration, name, _dying(getattr(migrate._Migration, name), stop_at, after=after))
            _dying.calls = 0  # type: ignore[attr-defined]
            try:
                report = run(ITEMS_COMMAND, "--tenant", broken.tenant, "--batch-size", "4", "--resume")
            except Killed:
                calls += 1
                continue
        break

    assert calls
    for name in ("total", "created", "unchanged", "failed", "bytes", "media", "reasons", "checksums"):
        assert report[name] == expected[name], name
    assert report["notices"] == expected["notices"]
    mine, theirs = (item_count(one) for one in (broken, whole))
    assert mine == theirs


def _dying(method: Any, stop_at: int, *, after: bool) -> Any:
    def die_at_times(*arguments: Any, **named: Any) -> Any:
        _dying.calls += 1  # type: ignore[attr-defined]
        is_last = _dying.calls == stop_at  # type: ignore[attr-defined]
        if is_last and not after:
            raise Killed
        result = method(*arguments, **named)
        if is_last:
            raise Killed
        return result

    return die_at_times


def item_count(old: Old) -> int:
    with tenant_scope(UUID(old.tenant)):
        return ContentItem.objects.count()


def test_two_at_a_time_are_refused(old: Old) -> None:
    old.item()
    with source.opened() as other:
        other._connection.execute("SELECT pg_advisory_lock(%s)", [migrate.LOCK])
        with pytest.raises(CommandError, match="Another migration") as refused:
            run(ITEMS_COMMAND)
    assert refused.value.returncode == 2


# The old database


def test_it_reads_with_a_role_that_may_do_nothing_else_and_writes_nothing(old: Old, schema: str, settings: Any) -> None:
    old.item()
    role = f"reader_{uuid4().hex[:8]}"
    there: dict[str, Any] = dict(psycopg.conninfo.conninfo_to_dict(source.own_url()))
    settings.LEGACY_DATABASE_URL = psycopg.conninfo.make_conninfo(**{**there, "user": role})
    before = snapshot(schema)
    with psycopg.connect(**{**there, "user": "postgres"}, autocommit=True) as superuser:
        superuser.execute(f"CREATE ROLE {role} LOGIN")
        superuser.execute(f"GRANT USAGE ON SCHEMA {schema} TO {role}")
        superuser.execute(f"GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO {role}")
        try:
            report = run(ITEMS_COMMAND)
        finally:
            superuser.execute(f"DROP OWNED BY {role}")
            superuser.execute(f"DROP ROLE {role}")

    assert report["created"] == 1
    assert snapshot(schema) == before


def snapshot(schema: str) -> list[Any]:
    """Return every row with the transaction that wrote it."""
    found = []
    with connection.cursor() as cursor:
        for table in sample.TABLES:
            cursor.execute(f"SELECT xmin::text, ctid::text, source.* FROM {schema}.{table} AS source ORDER BY id")
            found.append((table, cursor.fetchall()))
    return found


def test_its_connection_refuses_to_write(old: Old) -> None:
    with source.opened() as opened, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        opened._connection.execute(f"DELETE FROM {old.schema}.content_items")


def test_a_database_that_is_away_or_has_no_such_table_is_said_so(schema: str, settings: Any) -> None:
    execute(f"DROP TABLE {schema}.content_items")
    with pytest.raises(CommandError, match="no table content_items") as missing:
        run(ITEMS_COMMAND)
    settings.LEGACY_DATABASE_URL = "postgres://127.0.0.1:1/old"
    with pytest.raises(CommandError, match="cannot be reached") as away:
        run(ITEMS_COMMAND)
    assert (missing.value.returncode, away.value.returncode) == (2, 2)


def test_columns_of_other_types_and_missing_ones_are_read_alike(schema: str) -> None:
    old = Old(schema)
    for table in (ITEMS, ASSETS):
        execute(f"DROP TABLE {schema}.{table}")
    execute(
        f"CREATE TABLE {schema}.{ITEMS} (id uuid PRIMARY KEY, tenant_id uuid, title text, content_body text, "
        "content_type text, content_metadata jsonb, created_at timestamptz)"
    )
    execute(f"CREATE TABLE {schema}.{ASSETS} (id uuid, tenant_id uuid, asset_name text, asset_type text, tags text[])")
    old.owner()
    old_id = old.put(
        ITEMS,
        tenant_id=old.tenant,
        title="Typed",
        content_body="b",
        content_type="Article ",
        content_metadata='{"tags": ["a"]}',
        created_at="2024-01-01T12:00:00+02:00",
    )
    asset = old.put(ASSETS, tenant_id=old.tenant, asset_name="n", asset_type="headline", tags=["x", "y"])
    execute(f"ALTER TABLE {schema}.{ASSETS} ADD COLUMN headline_text text DEFAULT 'H'")

    run(ITEMS_COMMAND)
    run(ASSETS_COMMAND)

    item = item_of(old, old_id)
    assert (item.fields["type"], item.fields["tags"]) == ("article", ["a"])
    assert item.created_at.isoformat() == "2024-01-01T10:00:00+00:00"
    assert item_of(old, asset).fields["tags"] == ["x", "y"]


def test_a_page_of_large_rows_ends_early(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "PAGE_BYTES", 2000)
    for _ in range(5):
        old.item(content_body="x" * 900)

    with source.opened() as opened:
        opened.count(Selection(ITEMS))
        assert len(opened.page(Selection(ITEMS), after=None, limit=100)) < 5
    assert run(ITEMS_COMMAND)["created"] == 5


def test_memory_does_not_grow_with_problems_of_a_dry_run(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "MOST_DRY_PROBLEMS", 3)
    for _ in range(6):
        old.item(title=None)
    with source.opened() as opened:
        done = migrate.run(
            source=opened,
            wanted=Wanted(Selection(ITEMS), dry_run=True, batch_size=2),
            now=timezone.now,
            begin=lambda _total: None,
            progress=lambda _rows: None,
        )
    assert len(done.dry_problems) == 3
    assert done.tally.reasons == {"no_title": 6}


def test_bytes_that_are_no_text_are_refused_and_not_stumbled_over() -> None:
    row: source.Row = {
        **dict.fromkeys(source.COLUMNS[ITEMS]),
        "id": "1",
        "tenant_id": "2",
        "title": source.LenientText(0).load(b"caf\xe9"),
        "content_type": "post",
    }
    with pytest.raises(Unusable, match="title: its bytes are not UTF-8") as refused:
        convert.convert(ITEMS, row, keep_id=True, mend=True, now=timezone.now())
    assert refused.value.code == "not_text"


def test_http_is_a_reference_without_being_asked(old: Old) -> None:
    old_id = old.asset(file_url="http://files.legacy.example/a.png")

    report = run(ASSETS_COMMAND)

    assert report["media"] == 1
    assert item_of(old, old_id).fields["media"]


def test_an_erased_tenant_is_in_no_report_either(schema: str, old: Old) -> None:
    other = Old(schema).owner()
    old.item(title=None), old.item(), other.item(title=None), other.item()
    run(ITEMS_COMMAND)

    while erasure.erase_tenant(tenant_id=UUID(old.tenant), limit=100):
        pass

    [kept] = LegacyRun.objects.filter(counts__tenants__has_key=other.tenant)
    assert old.tenant not in kept.counts["tenants"]
    assert not LegacyProblem.objects.filter(of_tenant=old.tenant).exists()
    assert LegacyProblem.objects.filter(of_tenant=other.tenant).exists()


# What a review found


def test_a_body_over_the_usual_limit_comes_whole_where_the_setting_allows_it(old: Old, settings: Any) -> None:
    settings.CONTENT_MAX_BODY_BYTES = 4 * 1024**2
    old_id = old.item(content_body="x" * 3_000_000)

    assert run(ITEMS_COMMAND)["created"] == 1
    assert item_of(old, old_id).size_bytes == 3_000_000


def test_resume_goes_on_only_with_a_run_over_the_very_same_table(schema: str, settings: Any) -> None:
    old = Old(schema).owner()
    for _ in range(3):
        old.item()
    run(ITEMS_COMMAND)
    execute(f"CREATE TABLE {schema}.kept AS SELECT * FROM {schema}.{ITEMS}")
    execute(f"DROP TABLE {schema}.{ITEMS}")
    execute(f"CREATE TABLE {schema}.{ITEMS} AS SELECT * FROM {schema}.kept LIMIT 0")
    new = [old.item() for _ in range(3)]

    report = run(ITEMS_COMMAND, "--resume")

    assert (report["resumed"], report["total"], report["created"]) == (False, 3, 3)
    assert all(item_of(old, one) for one in new)


@pytest.mark.parametrize("kind", ["char(36)", "text", "uuid"])
def test_an_asset_with_the_id_of_an_item_comes_whatever_the_columns_are(old: Old, schema: str, kind: str) -> None:
    same = str(uuid4())
    execute(f"ALTER TABLE {schema}.{ITEMS} ALTER id TYPE {kind} USING id::{kind}")
    old.item(id=same)
    old.asset(id=same.upper(), headline_text="of the asset", cta_text=None)

    run(ITEMS_COMMAND)
    report = run(ASSETS_COMMAND)

    assert (report["created"], [one["code"] for one in report["warnings"]]) == (1, ["id_taken"])


def test_assets_come_beside_items_that_go_by_numbers(old: Old, schema: str) -> None:
    execute(f"DROP TABLE {schema}.{ITEMS}")
    execute(f"CREATE TABLE {schema}.{ITEMS} (id bigint PRIMARY KEY, tenant_id text, title text, content_type text)")
    execute(f"INSERT INTO {schema}.{ITEMS} VALUES (7, %s, 'Seven', 'post')", [old.tenant])
    old.asset()

    assert run(ASSETS_COMMAND)["created"] == 1
    assert run(ITEMS_COMMAND)["created"] == 1


def test_an_item_of_the_same_id_that_did_not_come_from_the_row_is_not_taken_for_it(schema: str, alice: Person) -> None:
    written = alice.writes(body="Alice's own")
    old = Old(schema, str(alice.tenant_id))
    old.item(id=written["id"], brand_id=None, user_id=None)

    assert codes(run(ITEMS_COMMAND)) == {written["id"]: "id_taken_here"}


def test_who_was_removed_is_not_invited_again(old: Old) -> None:
    old.item()
    run(ITEMS_COMMAND)
    with tenant_scope(UUID(old.tenant)):
        Membership.objects.filter(user_id=old.user).delete()

    run(ITEMS_COMMAND)

    with tenant_scope(UUID(old.tenant)):
        assert not Membership.objects.filter(user_id=old.user).exists()


def test_a_tenant_that_was_here_gets_no_members_by_old_rows(schema: str, alice: Person) -> None:
    old = Old(schema, str(alice.tenant_id))
    old.put("users", id=old.user, email="intruder@example.com", first_name="I", last_name="N")
    old.put("users", id=str(uuid4()), email=alice.email, first_name="A", last_name="L")
    stranger = old.item(brand_id=None)
    execute(f"UPDATE {schema}.users SET id = %s WHERE email = %s", ["alice-then", alice.email])
    hers = old.item(brand_id=None, user_id="alice-then")

    report = run(ITEMS_COMMAND)

    assert [(one["id"], one["code"]) for one in report["warnings"]] == [(stranger, "unknown_user")]
    assert not User.objects.filter(email="intruder@example.com").exists()
    with tenant_scope(alice.tenant_id):
        assert Membership.objects.count() == 1
        assert ContentItem.objects.get(id=hers).author_id == User.objects.get(email=alice.email).id


def test_an_old_id_makes_nobody_here_somebody_else(old: Old, schema: str, alice: Person) -> None:
    alice_id = User.objects.get(email=alice.email).id
    old.put("users", id=str(alice_id), email=f"{uuid4().hex}@example.com", first_name="Not", last_name="Alice")
    old_id = old.item(user_id=str(alice_id))

    run(ITEMS_COMMAND)

    with tenant_scope(UUID(old.tenant)):
        assert not Membership.objects.filter(user_id=alice_id).exists()
        assert ContentItem.objects.get(id=old_id).author_id != alice_id


@pytest.mark.parametrize("columns", [{"content_type": "hologram"}, {"brand_id": str(uuid4())}])
def test_for_rows_that_fail_nothing_is_made(old: Old, columns: dict[str, Any]) -> None:
    old.item(**columns)

    run(ITEMS_COMMAND)

    with system_scope("look"):
        assert not Tenant.objects.filter(id=old.tenant).exists()
    assert not User.objects.filter(id=old.user).exists()


def test_an_endless_address_is_nobody_s_and_stops_nothing(old: Old, schema: str) -> None:
    address = f"{'a' * 60}@{'.'.join(['b' * 50] * 4)}.com"
    execute(f"UPDATE {schema}.users SET email = %s", [address])
    old.item()

    assert run(ITEMS_COMMAND)["notices"] == {"unknown_user": 1}


def test_dates_are_read_whatever_the_database_s_style_is(old: Old, settings: Any) -> None:
    old_id = old.item()
    settings.LEGACY_DATABASE_URL = psycopg.conninfo.make_conninfo(source.own_url(), options="-c datestyle=German,DMY")

    run(ITEMS_COMMAND)

    assert item_of(old, old_id).created_at.isoformat() == "2023-05-01T10:00:00+00:00"


def test_passing_trouble_ends_the_run_and_resume_tries_again(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    old_id = old.asset()
    with monkeypatch.context() as patch:
        patch.setattr(files.Fetcher, "fetch", _raise(MediaUnavailable()))
        with pytest.raises(CommandError) as ended:
            call_command(ASSETS_COMMAND, "--json", stdout=StringIO())
    assert ended.value.returncode == 2

    assert run(ASSETS_COMMAND, "--resume")["created"] == 1
    assert item_of(old, old_id)


def _raise(error: BaseException) -> Any:
    def fail(*_: Any, **__: Any) -> Any:
        raise error

    return fail


def test_what_happened_elsewhere_is_announced_to_no_webhook(schema: str, alice: Person) -> None:
    with tenant_scope(alice.tenant_id):
        Webhook.objects.create(tenant_id=alice.tenant_id, url="https://hooks.example.com/all", secret="s", events=[])
        before = Delivery.objects.count()
    Old(schema, str(alice.tenant_id)).item(brand_id=None)

    run(ITEMS_COMMAND)

    with tenant_scope(alice.tenant_id):
        assert Delivery.objects.count() == before
    alice.writes()
    with tenant_scope(alice.tenant_id):
        assert Delivery.objects.count() == before + 1


def test_a_time_that_is_past_publishes_nothing(old: Old) -> None:
    past = json.dumps({"scheduled_at": "2022-01-01T00:00:00"})
    bad = old.item(status="scheduled", content_metadata=past)

    assert codes(run(ITEMS_COMMAND)) == {bad: "time_past"}
    run(ITEMS_COMMAND, "--mend")
    item = item_of(old, bad)
    assert (item.status, item.fields["metadata"]["scheduled_at"]) == ("draft", "2022-01-01T00:00:00")


@pytest.mark.parametrize(
    "url",
    [
        "https:///127.0.0.1/a.png",
        "https://127.0.0.1\\@example.com/a.png",
        "https://user:password@files.legacy.example/a.png",
        "the picture from Tuesday",
        "javascript:alert(1)",
    ],
)
def test_an_address_that_is_read_in_more_than_one_way_is_refused(old: Old, url: str) -> None:
    bad = old.asset(file_url=url)

    assert codes(run(ASSETS_COMMAND)) == {bad: "bad_file_url"}


@pytest.mark.parametrize("name", ["id", "tenant_id", "brand_id", "user_id"])
def test_an_endless_id_is_refused(old: Old, schema: str, name: str) -> None:
    execute(f"ALTER TABLE {schema}.{ITEMS} ALTER {name} TYPE text")
    old.item(**{name: "x" * 300})

    assert list(codes(run(ITEMS_COMMAND)).values()) == ["id_too_long"]


def test_a_tenant_s_id_in_upper_case_is_the_same_in_the_first_run_too(old: Old) -> None:
    old_id = old.item(tenant_id=old.tenant.upper(), brand_id=old.brand.upper())

    assert run(ITEMS_COMMAND)["created"] == 1
    assert item_of(old, old_id)


def test_a_terminal_is_shown_no_old_row_s_commands(old: Old, schema: str) -> None:
    execute(f"UPDATE {schema}.tenants SET name = %s", ["Ev\x1b]0;owned\x07il\nstudio"])
    old.item(id="\x1b[2Jx", content_type=None)
    old.item()
    out = StringIO()
    with pytest.raises(SystemExit):
        call_command(ITEMS_COMMAND, "--no-files", stdout=out)

    assert all(one.isprintable() or one == "\n" for one in out.getvalue())
    assert "\\x1b[2Jx" in out.getvalue()


def test_a_password_in_a_broken_address_is_not_told(schema: str, settings: Any) -> None:
    settings.LEGACY_DATABASE_URL = "postgress://reader:s3cretpw@old.example.com/studio"
    with pytest.raises(CommandError, match="no address of a PostgreSQL database") as refused:
        run(ITEMS_COMMAND)
    assert "s3cretpw" not in str(refused.value)
    assert refused.value.returncode == 2


def test_a_report_that_cannot_be_written_is_noticed_before_the_work(old: Old, tmp_path: Path) -> None:
    old.item()
    with pytest.raises(CommandError, match="cannot be written") as refused:
        run(ITEMS_COMMAND, "--report", str(tmp_path / "nowhere" / "report.json"))
    assert refused.value.returncode == 2
    with system_scope("look"):
        assert not Tenant.objects.filter(id=old.tenant).exists()


def test_ctrl_c_says_how_to_go_on(old: Old, monkeypatch: pytest.MonkeyPatch) -> None:
    old.item()
    monkeypatch.setattr(migrate._Migration, "_batch", _raise(KeyboardInterrupt()))
    with pytest.raises(CommandError, match="--resume"):
        run(ITEMS_COMMAND)
