"""The change log's lines of rows: what triggers write, whoever changes a row and however, and what never gets there."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from django.apps import apps
from django.db import connection, transaction
from django.db.models import Model

from content.models import Blob, Change, Media, Webhook
from content.models.media import FileType
from dr import archives
from dr.archives.base import MEDIA_TYPES
from dr.archives.bigquery import CONTENT_TABLE, MEDIA_TABLE, BigQueryArchive
from engarde.accounts.models import ApiKey, Brand, Mail, Membership, Session, Tenant, User
from engarde.common.constraints import BackedUp, backed_up_tables
from engarde.common.scopes import system_scope, tenant_scope
from generation.models import Job, JobItem, LLMKey
from quotas.models import AlertTarget, Plan, QuotaUsage
from tests.people import PASSWORD, JSONClient, Person

TYPES = sorted(backed_up_tables())
PLATFORM = UUID(int=0)
LOWEST_RANK = 100  # of plans that these tests make
NOW = datetime(2026, 3, 2, 12, 30, 0, 123456, tzinfo=UTC)


@pytest.fixture(autouse=True, scope="module")
def no_plans_left(django_db_blocker) -> Iterator[None]:
    """A plan of these tests would be the largest one to others."""
    yield
    with django_db_blocker.unblock():
        Plan.objects.filter(rank__gte=LOWEST_RANK).delete()


def new_tenant() -> Tenant:
    return Tenant.objects.create(name="A tenant")


def new_user() -> User:
    return User.objects.create_user(f"{uuid4().hex}@example.com", PASSWORD)


def new_key(tenant_id: UUID) -> ApiKey:
    names = {"name": "A key", "public_id": uuid4().hex[:12], "last4": "abcd", "scopes": ["content:read"]}
    return ApiKey.objects.create(tenant_id=tenant_id, secret_hash=b"\x00\\\xff hash", **names)


def new_plan() -> Plan:
    taken = set(Plan.objects.values_list("rank", flat=True))
    return Plan.objects.create(
        tier=uuid4().hex[:20], rank=next(one for one in range(LOWEST_RANK, 30_000) if one not in taken)
    )


def new_blob(tenant_id: UUID) -> Blob:
    return Blob.objects.create(tenant_id=tenant_id, sha256=uuid4().bytes, size_bytes=3, storage_key="a/b")


def new_media(tenant_id: UUID) -> Media:
    kind = {"file_type": FileType.OTHER, "mime_type": "text/plain"}
    return Media.objects.create(
        tenant_id=tenant_id, blob=new_blob(tenant_id), file_name='naïve "✓".txt', size_bytes=3, created_at=NOW, **kind
    )


def new_job(tenant_id: UUID) -> Job:
    what = {"content_type": "post", "provider": "openai", "model": "gpt-test", "params": {"b": [1, None], "a": "ü"}}
    return Job.objects.create(
        tenant_id=tenant_id,
        brand_id=uuid4(),
        created_by=uuid4(),
        target_count=2,
        concurrency=1,
        estimated_item_bytes=1,
        created_at=NOW,
        **what,
    )


MAKE: dict[str, Callable[[UUID], Model]] = {
    "tenant": lambda _tenant_id: new_tenant(),
    "brand": lambda tenant_id: Brand.objects.create(tenant_id=tenant_id, name="A brand", voice="loud | \\ line\n"),
    "user": lambda _tenant_id: new_user(),
    "membership": lambda tenant_id: Membership.objects.create(tenant_id=tenant_id, user=new_user(), role="viewer"),
    "api_key": new_key,
    "plan": lambda _tenant_id: new_plan(),
    "quota": lambda _tenant_id: QuotaUsage.objects.create(tenant=new_tenant(), plan_id="free"),
    "blob": new_blob,
    "media": new_media,
    "job": new_job,
    "job_item": lambda tenant_id: JobItem.objects.create(tenant_id=tenant_id, job=new_job(tenant_id), index=7),
}
CHANGES: dict[str, dict[str, Any]] = {
    "tenant": {"name": "Another name"},
    "brand": {"voice": "quiet"},
    "user": {"first_name": "Zoë"},
    "membership": {"role": "admin", "accepted_at": NOW},
    "api_key": {"revoked_at": NOW},
    "plan": {"storage_limit_bytes": 5},
    "quota": {"storage_limit_override": 7, "override_reason": "a gift"},
    "blob": {"thumbnail_key": "a/c"},
    "media": {"file_name": "other.txt"},
    "job": {"status": "running", "completed": 1},
    "job_item": {"status": "failed", "error_code": "refused", "lease": None, "lease_until": None},
}
"""What changes, by type; of what is left out and of what is counted something changes with it."""
SILENT: dict[str, list[dict[str, Any]]] = {
    "user": [{"last_login": NOW}],
    "api_key": [{"last_used_at": NOW}],
    "quota": [
        {"used_bytes": 5, "reserved_bytes": 6, "content_items": 7, "media_files": 8},
        {"disarmed_thresholds": [80], "updated_at": NOW, "counted_on": NOW.date()},
    ],
    "blob": [{"unused_since": NOW}],
    "job": [{"completed": 1, "last_seq": 1, "cost_usd": 2, "stored_bytes": 9}, {"touched_at": NOW, "not_before": NOW}],
    "job_item": [
        {"status": "running", "lease": UUID(int=1), "lease_until": NOW},
        {"attempts": 1, "next_attempt_at": NOW},
    ],
}
"""What changes without a line in the log."""


@contextmanager
def anybody() -> Iterator[None]:
    """The scope in which a test changes rows."""
    with system_scope("a test changes rows"):
        yield


def rule_of(entity_type: str) -> BackedUp:
    return backed_up_tables()[entity_type][1]


def entity_of(entity_type: str, row: Model) -> UUID:
    """Return the id by which the log knows a row: its own, or a hash of what names it."""
    key = [str(getattr(row, name)) for name in rule_of(entity_type).key]
    return (
        UUID(key[0])
        if len(key) == 1 and entity_type != "plan"
        else UUID(hashlib.md5(":".join(key).encode()).hexdigest())
    )


def lines_of(entity_type: str, row: Model) -> list[Change]:
    """Return the log's lines of a row, in order."""
    with system_scope("a test looks"):
        found = Change.objects.filter(entity_type=entity_type, entity_id=entity_of(entity_type, row))
        return list(found.order_by("seq"))


def tenant_of(entity_type: str, row: Model) -> UUID:
    column = rule_of(entity_type).tenant
    return UUID(str(getattr(row, column))) if column else PLATFORM


def row_of(entity_type: str, row: Model) -> dict[str, Any]:
    """Return a row as it is, column by column, without what the backup leaves out."""
    model, rule = backed_up_tables()[entity_type]
    columns = [field.column for field in model._meta.concrete_fields if field.column]
    where = " AND ".join(f'"{name}" = %s' for name in rule.key)
    listed = ", ".join(f'to_jsonb("{name}")' for name in columns)
    with system_scope("a test looks"), connection.cursor() as cursor:
        cursor.execute(
            f'SELECT {listed} FROM "{model._meta.db_table}" WHERE {where}', [getattr(row, name) for name in rule.key]
        )
        values = [json.loads(value) if value is not None else None for value in cursor.fetchone()]
    return {name: value for name, value in zip(columns, values, strict=True) if name not in rule.left_out}


def update(row: Model, **values: Any) -> None:
    assert type(row)._base_manager.filter(pk=row.pk).update(**values) == 1


def test_the_tests_know_every_table_that_is_backed_up() -> None:
    assert sorted(MAKE) == sorted(CHANGES) == TYPES
    left_out = {entity_type for entity_type in TYPES if rule_of(entity_type).left_out}
    counted = {entity_type for entity_type in TYPES if rule_of(entity_type).noticed or rule_of(entity_type).when}
    assert SILENT.keys() == left_out | counted
    for entity_type in left_out:
        told = {name for values in SILENT[entity_type] for name in values}
        assert told >= set(rule_of(entity_type).left_out), entity_type


@pytest.mark.parametrize("entity_type", TYPES)
def test_a_row_that_comes_changes_and_goes_leaves_lines_that_equal_it(alice: Person, entity_type: str) -> None:
    silent = {name: value for values in SILENT.get(entity_type, []) for name, value in values.items()}
    with anybody():
        row = MAKE[entity_type](alice.tenant_id)
    there = [row_of(entity_type, row)]
    with anybody():
        update(row, **{**(silent if rule_of(entity_type).left_out else {}), **CHANGES[entity_type]})
    there.append(row_of(entity_type, row))
    with anybody():
        type(row)._base_manager.filter(pk=row.pk).delete()

    lines = lines_of(entity_type, row)
    if entity_type == "job_item":  # an item that is not finished is made anew with its job
        assert [(line.op, json.loads(line.facts or "")) for line in lines] == [("U", there[1])]
    else:
        assert [line.op for line in lines] == ["I", "U", "P"]
        assert [json.loads(line.facts or "") for line in lines[:2]] == there
        assert lines[2].facts is None
    for line in lines:
        assert (line.tenant_id, line.version, line.batch_id) == (tenant_of(entity_type, row), 0, None)
        assert bytes(line.sha256) == hashlib.sha256((line.facts or "").encode()).digest()
        assert line.xid > 0


@pytest.mark.parametrize("entity_type", sorted(SILENT))
def test_what_is_left_out_or_only_counted_changes_without_a_line(alice: Person, entity_type: str) -> None:
    with anybody():
        row = MAKE[entity_type](alice.tenant_id)
    before = len(lines_of(entity_type, row))

    for values in SILENT[entity_type]:
        with anybody():
            update(row, **values)

    assert len(lines_of(entity_type, row)) == before
    with anybody():
        update(row, **CHANGES[entity_type])
    assert len(lines_of(entity_type, row)) == before + 1, "the trigger is there"


def test_an_item_of_a_job_is_logged_each_time_it_ends_and_never_before(alice: Person) -> None:
    with anybody():
        item = MAKE["job_item"](alice.tenant_id)
    story: list[dict[str, Any]] = [
        {"status": "running", "lease": UUID(int=1), "lease_until": NOW},
        {"status": "failed", "lease": None, "lease_until": None, "error_code": "refused"},
        {"cost_usd": 1},
        {"status": "pending", "error_code": ""},
        {"status": "completed", "content_id": uuid4()},
    ]
    for values in story:
        with anybody():
            update(item, **values)

    told = [json.loads(line.facts or "")["status"] for line in lines_of("job_item", item)]
    assert told == ["failed", "completed"]


@pytest.mark.parametrize("entity_type", TYPES)
def test_what_is_rolled_back_leaves_no_line(alice: Person, entity_type: str) -> None:
    rows: list[Model] = []

    def make_and_change() -> None:
        rows.append(MAKE[entity_type](alice.tenant_id))
        update(rows[0], **CHANGES[entity_type])

    take_back(make_and_change)
    with anybody():
        rows.append(MAKE[entity_type](alice.tenant_id))
    with anybody():
        take_back_to_savepoint(lambda: update(rows[1], **CHANGES[entity_type]))

    assert lines_of(entity_type, rows[0]) == []
    assert len(lines_of(entity_type, rows[1])) == (0 if entity_type == "job_item" else 1)


class TakenBack(Exception):
    """Rolls a transaction back."""


def take_back(act: Callable[[], object]) -> None:
    """Do something in a transaction that is rolled back."""
    with suppress(TakenBack), anybody():
        act()
        raise TakenBack


def take_back_to_savepoint(act: Callable[[], object]) -> None:
    """Do something in an open transaction that goes back to where it was."""
    with suppress(TakenBack), transaction.atomic():
        act()
        raise TakenBack


@pytest.mark.parametrize("entity_type", TYPES)
def test_a_transaction_that_restores_writes_no_line_and_the_next_one_does(alice: Person, entity_type: str) -> None:
    with anybody(), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('engarde.restoring', 'on', true)")
        row = MAKE[entity_type](alice.tenant_id)
        update(row, **CHANGES[entity_type])
        type(row)._base_manager.filter(pk=row.pk).delete()
    assert lines_of(entity_type, row) == []

    with anybody():
        row = MAKE[entity_type](alice.tenant_id)
        update(row, **CHANGES[entity_type])
    assert lines_of(entity_type, row)


def test_content_that_is_restored_leaves_no_line_either(alice: Person) -> None:
    item_id = alice.writes()["id"]
    with system_scope("a test restores"), connection.cursor() as cursor:
        cursor.execute("SELECT set_config('engarde.restoring', 'on', true)")
        cursor.execute("UPDATE content_storage_metadata SET version = 7 WHERE id = %s", [item_id])
        cursor.execute("UPDATE content_storage_metadata SET version = 1 WHERE id = %s", [item_id])

    with system_scope("a test looks"):
        assert Change.objects.filter(entity_id=UUID(item_id)).count() == 1


def test_all_changes_of_a_transaction_have_its_time_and_number(alice: Person) -> None:
    with anybody(), connection.cursor() as cursor:
        brand = Brand.objects.create(tenant_id=alice.tenant_id, name="A brand")
        cursor.execute("SELECT pg_sleep(0.01)")
        update(brand, voice="later")
        cursor.execute("SELECT now(), pg_current_xact_id()::text::bigint")
        began, number = cursor.fetchone()

    lines = lines_of("brand", brand)
    assert [(line.changed_at, line.xid) for line in lines] == [(began, number)] * 2


# Anybody's connection


@contextmanager
def plain_connection(*settings: str) -> Iterator["psycopg.Connection[Any]"]:
    """A connection as of psql: no scope, no Django, settings of its own."""
    parameters = connection.get_connection_params()
    names = ("host", "port", "dbname", "user", "password")
    with psycopg.connect(
        **{name: parameters[name] for name in names if parameters.get(name)}, autocommit=True
    ) as plain:
        for setting in settings:
            plain.execute(setting.encode())
        yield plain


ODD = ("SET TimeZone TO 'Asia/Kathmandu'", "SET DateStyle TO 'SQL, DMY'", "SET IntervalStyle TO 'sql_standard'")


def test_a_persons_row_is_logged_from_a_connection_without_any_scope_with_the_same_text(database: None) -> None:
    user = new_user()
    with plain_connection(*ODD) as plain:
        plain.execute("UPDATE accounts_user SET email_verified_at = now() WHERE id = %s", [user.id])
        assert plain.execute("SHOW TimeZone").fetchone() == ("Asia/Kathmandu",)
        assert plain.execute("SELECT count(*) FROM accounts_tenant").fetchone() == (0,), "no scope is left open"

    first, last = lines_of("user", user)
    assert (last.tenant_id, last.facts) == (PLATFORM, text_of("accounts_user", user.id, "last_login"))
    assert json.loads(last.facts or "")["created_at"] == json.loads(first.facts or "")["created_at"]
    assert "+00:00" in (last.facts or "")


@pytest.mark.parametrize("setting", [*ODD, pytest.param("SET bytea_output TO 'escape'"), "SET extra_float_digits TO 0"])
def test_a_tenants_row_is_logged_with_the_same_text_whatever_a_connections_settings(
    alice: Person, setting: str
) -> None:
    with anybody():
        key = new_key(alice.tenant_id)
    with plain_connection(setting, "SET engarde.system TO 'on'") as plain:
        plain.execute("UPDATE accounts_apikey SET expires_at = now() WHERE id = %s", [key.id])

    last = lines_of("api_key", key)[-1]
    assert (last.tenant_id, last.op) == (alice.tenant_id, "U")
    assert last.facts == text_of("accounts_apikey", key.id, "last_used_at")


def text_of(table: str, row_id: UUID, left_out: str) -> str:
    """Return a row's facts as verification computes them."""
    with system_scope("a test looks"), connection.cursor() as cursor:
        cursor.execute(f"SELECT (to_jsonb(kept) - %s)::text FROM {table} AS kept WHERE id = %s", [left_out, row_id])
        return str(cursor.fetchone()[0])


def test_a_connection_without_a_scope_sees_no_line_and_cannot_change_a_tenants_row(alice: Person) -> None:
    with plain_connection() as plain:
        assert plain.execute("SELECT count(*) FROM content_changes").fetchone() == (0,)
        assert plain.execute("UPDATE accounts_brand SET voice = 'x' WHERE id = %s", [alice.brand_id]).rowcount == 0


def test_a_persons_row_that_changes_in_a_tenants_scope_opens_it_to_no_other_tenant(
    alice: Person, charlie: Person
) -> None:
    with tenant_scope(alice.tenant_id):
        user = new_user()
        update(user, first_name="Ann")
        visible = set(Tenant.objects.values_list("id", flat=True))

    assert visible == {alice.tenant_id}
    assert [line.tenant_id for line in lines_of("user", user)] == [PLATFORM] * 2
    assert charlie.tenant_id not in visible


# Secrets


SENSITIVE: tuple[type[Model], ...] = (LLMKey, Webhook, AlertTarget, Session, Mail)
HASHES = {("user", "password"), ("api_key", "secret_hash"), ("api_key", "previous_hash")}
"""Without them nobody could log in after a restore."""
TELLING = re.compile("secret|password|hash|token(?!s)|credential")


def test_no_table_with_secrets_is_backed_up_but_for_hashes_that_let_people_in() -> None:
    assert {model for model, _ in backed_up_tables().values()}.isdisjoint(SENSITIVE)
    found = {
        (entity_type, field.column)
        for entity_type, (model, rule) in backed_up_tables().items()
        for field in model._meta.concrete_fields
        if field.column and field.column not in rule.left_out and TELLING.search(field.column)
    }
    assert found == HASHES
    readable = {
        model._meta.label
        for model in apps.get_models()
        if any("secret" in field.name or "refresh" in field.name for field in model._meta.concrete_fields)
    }
    known = {model._meta.label for model in SENSITIVE} | {ApiKey._meta.label}
    assert readable <= known, "a table with secrets that these tests do not know"


def test_only_tables_that_are_declared_write_into_the_log(database: None) -> None:
    declared = {model._meta.db_table for model, _ in backed_up_tables().values()}
    with connection.cursor() as cursor:
        cursor.execute(
            """SELECT DISTINCT place.relname, made.proname FROM pg_trigger AS given
            JOIN pg_class AS place ON place.oid = given.tgrelid JOIN pg_proc AS made ON made.oid = given.tgfoid
            WHERE made.prosrc ~ 'INTO content_changes'"""
        )
        found = set(cursor.fetchall())

    assert {table for table, name in found if name == "engarde_log_row"} == declared
    assert {each for each in found if each[1] != "engarde_log_row"} == {
        ("content_storage_metadata", "content_log_change"),
        ("content_versions", "content_version_went"),
    }


def test_what_only_its_owner_may_know_is_in_no_line_and_not_in_bigquery(
    alice: Person, bob: Person, back_up: Callable[[], int]
) -> None:
    secret = uuid4().hex
    mine: dict[str, Any] = {"tenant_id": alice.tenant_id}
    with anybody():
        LLMKey.objects.create(**mine, provider="openai", secret=secret, master_key_id="1", last4="abcd")
        Webhook.objects.create(**mine, url=f"https://example.com/{secret}", secret=secret)
        AlertTarget.objects.create(**mine, kind="slack", url=secret, url_hint="example.com")
    told = JSONClient().post("/api/auth/login", {"email": bob.email, "password": PASSWORD}).json()
    secrets = [secret, PASSWORD, told["refresh_token"], told["access_token"], alice.credentials["HTTP_X_API_KEY"]]
    with anybody():
        secrets += [bytes(one.refresh_hash).hex() for one in Session.objects.filter(user_id=bob.user_id)]

    with system_scope("a test looks"):
        lines = Change.objects.filter(tenant_id__in=[alice.tenant_id, PLATFORM]).exclude(facts=None)
        facts = "\n".join(str(text) for text in lines.values_list("facts", flat=True))
    back_up()
    kept = "\n".join(in_bigquery(alice.tenant_id))

    assert len(secrets) > 5
    for text in (facts, kept):
        assert bob.email in text, "it is the right text"
        assert [one for one in secrets if one in text] == []


def test_hashes_that_let_people_in_are_kept(alice: Person, bob: Person) -> None:
    user = User.objects.get(id=bob.user_id)
    with system_scope("a test looks"):
        key = ApiKey.objects.get(tenant_id=alice.tenant_id)

    assert json.loads(lines_of("user", user)[-1].facts or "")["password"] == user.password
    kept = json.loads(lines_of("api_key", key)[-1].facts or "")["secret_hash"]
    assert kept == "\\x" + bytes(key.secret_hash).hex()


def in_bigquery(tenant_id: UUID) -> list[str]:
    """Return the facts and documents that BigQuery has of a tenant and of the platform."""
    archive = archives.current()
    assert isinstance(archive, BigQueryArchive)
    found: list[str] = []
    for table in (CONTENT_TABLE, MEDIA_TABLE):
        rows = archive._rest().query(
            f"SELECT CONCAT(facts, IFNULL(document, '')) AS kept FROM `{archive.dataset}.{table}` "
            f"WHERE tenant_id IN ('{tenant_id}', '{PLATFORM}')"
        )
        found += [row["kept"] for row in rows.result()]
    return found


@pytest.mark.parametrize("entity_type", TYPES)
def test_every_type_of_row_arrives_in_its_table(alice: Person, back_up: Callable[[], int], entity_type: str) -> None:
    with anybody():
        row = MAKE[entity_type](alice.tenant_id)
        update(row, **CHANGES[entity_type])
    lines = lines_of(entity_type, row)

    back_up()

    archive = archives.current()
    assert isinstance(archive, BigQueryArchive)
    table = MEDIA_TABLE if entity_type in MEDIA_TYPES else CONTENT_TABLE
    rows = archive._rest().query(
        f"SELECT facts FROM `{archive.dataset}.{table}` WHERE entity_type = '{entity_type}' "
        f"AND entity_id = '{entity_of(entity_type, row)}' ORDER BY change_seq"
    )
    assert [one["facts"] for one in rows.result()] == [line.facts for line in lines]
    assert not any(line.acked_at for line in lines)
    assert all(line.acked_at for line in lines_of(entity_type, row))
