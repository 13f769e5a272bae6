"""64 processes that fill one tenant by every way in and out at once: never a byte over the limit, and every byte of it used."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.db import connection
from django.utils import timezone

from engarde.common.scopes import system_scope
from quotas import operations, reconciliation
from quotas.operations import Limits
from tests import people
from tests.people import Person
from tests.quotas import house
from tests.quotas.storm import SIZES, storm
from tests.stored import stored_by

TRACE = """
CREATE TABLE test_quota_trace (tenant_id uuid, used bigint, reserved bigint, most bigint);
CREATE FUNCTION test_trace_quota() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO test_quota_trace VALUES (NEW.tenant_id, NEW.used_bytes, NEW.reserved_bytes, NEW.storage_limit_override);
    RETURN NULL;
END $$;
CREATE TRIGGER test_quota_changed AFTER INSERT OR UPDATE ON content_quota_usage
FOR EACH ROW EXECUTE FUNCTION test_trace_quota();
"""
FORGET = """
DROP TRIGGER test_quota_changed ON content_quota_usage;
DROP FUNCTION test_trace_quota();
DROP TABLE test_quota_trace;
"""
WAYS = {"create", "change", "delete", "undelete", "upload", "remove", "batch", "forget", "fill"}


@contextmanager
def traced() -> Iterator[None]:
    """Have the database itself note every state of every tenant's counters that is committed."""
    with connection.cursor() as cursor:
        cursor.execute(TRACE)
        try:
            yield
        finally:
            cursor.execute(FORGET)


def trace(person: Person) -> tuple[int, int, int]:
    """Return how many states were committed, the highest used + reserved, and how many were above the limit."""
    with system_scope("a test reads its trace"), connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*), max(used + reserved), count(*) FILTER (WHERE used + reserved > most) "
            "FROM test_quota_trace WHERE tenant_id = %s",
            [person.tenant_id],
        )
        return cursor.fetchone()


def fill_a_house(*, writers: int, steps: int, limit: int) -> None:
    person = people.new_owner("dora", storage_limit=limit)
    with house.inside(person) as tenant_id:
        limits = Limits(storage_bytes=limit, generated_items=10**6, reason="A test.")
        operations.override_limits(tenant_id=tenant_id, limits=limits, now=timezone.now())
    with traced():
        did = storm(person, writers=writers, steps=steps)
        states, highest, above = trace(person)

    assert did.keys() >= WAYS, did
    assert did["fill refused"] == len(SIZES) * writers
    assert (highest, above) == (limit, 0)
    assert states >= did["create"] + did["delete"] + did["upload"] + did["fill"]
    stored = stored_by(person.tenant_id)
    assert stored.counters_are_true
    assert (stored.counted_bytes, stored.reserved_bytes) == (limit, 0)
    assert reconciliation.reconcile(tenant_id=person.tenant_id, now=timezone.now()).differences == {}
    assert house.month(person).reserved == 0


@pytest.mark.parametrize("writers", [16, pytest.param(64, marks=pytest.mark.soak)])
def test_processes_use_every_byte_and_never_one_more(database: None, writers: int) -> None:
    fill_a_house(writers=writers, steps=6, limit=10_000)


@pytest.mark.soak
@pytest.mark.parametrize("limit", [5_000, 200_000])
def test_64_processes_use_every_byte_and_never_one_more_for_long(database: None, limit: int) -> None:
    fill_a_house(writers=64, steps=60, limit=limit)
