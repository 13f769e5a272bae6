"""The admin's first page: what each room tells staff, whom it tells, and that it asks few questions."""

import re
from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from content import spool
from dr import queries, states
from dr.models import Drill, Finding, Verification
from engarde.accounts.models import User
from engarde.common.scopes import system_scope
from generation.models import Job, JobStatus
from quotas.models import QuotaUsage
from tests import people
from tests.dr import backup_house
from tests.people import PASSWORD, Person
from tests.quotas import house as quota_house

MOST_QUERIES = 45


@pytest.fixture(autouse=True)
def _well(database: None, settings: Any) -> Iterator[None]:
    settings.BIGQUERY_SYNC_ENABLED = True
    backup_house.make_well()
    yield
    backup_house.make_well()


def new_user(*permissions: str, **fields: Any) -> User:
    user = User.objects.create_user(f"staff-{uuid4().hex[:12]}@example.com", PASSWORD, **fields)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    return user


def browser_of(user: User) -> Client:
    browser = Client()
    browser.force_login(user)
    return browser


@pytest.fixture
def staff(database: None) -> Client:
    """A browser of somebody who may see everything."""
    return browser_of(new_user(is_staff=True, is_superuser=True))


def home(browser: Client) -> str:
    """Return what somebody reads on the page."""
    answer = browser.get("/admin/")
    assert answer.status_code == 200, answer.status_code
    html = answer.content.decode()
    main = html[html.index('aria-label="What needs somebody"') :] if "What needs somebody" in html else html
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", main)).split())


def make_job(person: Person, **fields: Any) -> Job:
    values = {
        "brand_id": person.brand_id, "created_by": person.user_id, "content_type": "post", "target_count": 10,
        "concurrency": 1, "provider": "openai", "model": "m", "params": {}, "estimated_item_bytes": 1,
        "created_at": timezone.now(), **fields,
    }  # fmt: skip
    with system_scope("a test makes a job"):
        return Job.objects.create(tenant_id=person.tenant_id, **values)


def test_it_shows_the_tenants_that_are_nearest_their_limits(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quotas.admin.home.SHOWN", 1000)  # other tests leave full tenants behind
    full = people.new_owner(f"full-{uuid4().hex[:6]}", storage_limit=100)
    near = people.new_owner(f"near-{uuid4().hex[:6]}", storage_limit=100)
    roomy = people.new_owner(f"roomy-{uuid4().hex[:6]}", storage_limit=100)
    for person, size in ((full, 100), (near, 99), (roomy, 50)):
        quota_house.store(person, size, now=timezone.now())
    try:
        html, found = staff.get("/admin/").content.decode(), home(staff)
    finally:
        for person in (full, near):
            make_room(person)

    assert f"/admin/quotas/quotausage/{full.tenant_id}/change/" in html
    assert f"/admin/quotas/quotausage/{near.tenant_id}/change/" in html
    assert f"/admin/quotas/quotausage/{roomy.tenant_id}/change/" not in html
    assert html.index(str(full.tenant_id)) < html.index(str(near.tenant_id))
    assert "no storage left: what adds bytes is refused" in found
    assert "/admin/quotas/quotausage/?level=exceeded" in html
    assert "99 bytes of 100 bytes 99.00 %" in found


def make_room(person: Person) -> None:
    with system_scope("a test gives a tenant room"):
        QuotaUsage.objects.filter(tenant_id=person.tenant_id).update(storage_limit_override=10**9)


def test_it_shows_jobs_under_way_and_those_that_failed_lately(staff: Client, alice: Person) -> None:
    now = timezone.now()
    going = make_job(alice, status=JobStatus.RUNNING, completed=4, started_at=now)
    failed = make_job(alice, status=JobStatus.FAILED, error_message="The key was refused.", completed_at=now)
    old = make_job(alice, status=JobStatus.FAILED, completed_at=now - timedelta(days=2))
    try:
        html, found = staff.get("/admin/").content.decode(), home(staff)
    finally:
        with system_scope("a test tidies up"):
            Job.objects.filter(id__in=[going.id, failed.id, old.id]).delete()

    for job in (going, failed):
        assert f"/admin/generation/job/{job.id}/change/" in html
    assert str(old.id) not in html
    assert "4 of 10 40.0 %" in found
    assert "The key was refused." in found
    assert re.search(r"soon \d+ jobs? failed in the last 24 hours\.", found)


def test_it_shows_how_the_backup_is_and_what_was_found(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    now = timezone.now()
    monkeypatch.setattr(states, "oldest_waiting_at", lambda: now - timedelta(hours=2))
    with system_scope("a test makes rows"):
        verification = Verification.objects.create(started_at=now, finished_at=now, checked=5, missing=1)
        finding = Finding.objects.create(
            verification_id=verification.id, tenant_id=uuid4(), entity_type="content", entity_id=uuid4(), tier="zerodb",
            found_at=now, kind="missing", problem="ZeroDB lacks it",
        )  # fmt: skip
        ended = now - timedelta(days=20)
        drill = Drill(started_at=ended, finished_at=ended, scheduled=True, ok=True, items=40, rto_seconds=7.5)
    monkeypatch.setattr(queries, "last_good_drill", lambda: drill)
    try:
        html, found = staff.get("/admin/").content.decode(), home(staff)
    finally:
        with system_scope("a test tidies up"):
            Finding.objects.filter(id=finding.id).delete()
            Verification.objects.filter(id=verification.id).delete()

    assert "More could be lost than promised: the oldest change has waited for 2 h." in found
    assert "The backup is lagging." in found
    assert re.search(r"\d+ findings? (is|are) open", found)
    assert "No drill went well for 20 days." in found
    assert "20 days ago: 40 items back in 7.5 s, 0 lost" in found
    assert f"/admin/dr/finding/{finding.id}/change/" in html
    assert "5 checked, 0 mismatched, 1 missing, 0 extra" in found
    assert found.index("More could be lost") < found.index("The backup is lagging")


def test_it_shows_what_waits_for_zerodb(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "backlog", lambda: spool.Backlog(3, 2048, 3600.0, 1, 1024, 2, 60.0))

    found = home(staff)

    assert "3 documents wait for ZeroDB, the oldest for 1 h. Nothing is lost." in found
    assert "wait for ZeroDB 3 documents the oldest waits for 1 h wait for the backup only 1 document" in found
    assert "3 KB of 1 GB in the spool." in found


def test_it_says_in_words_that_there_is_nothing_to_show(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool, "backlog", lambda: spool.Backlog(0, 0, 0.0, 0, 0, 0, 0.0))
    monkeypatch.setattr(queries, "last_good_drill", lambda: None)
    monkeypatch.setattr(queries, "open_findings", Finding.objects.none)
    monkeypatch.setattr("quotas.admin.home.by_fullness", _nobody)
    found = home(staff)

    for words in (
        "No tenant has used 70 % of its storage.",
        "ZeroDB has everything.",
        "No finding is open.",
        "No scheduled drill has gone well yet; there is one on Sundays at 5:30 UTC.",
    ):
        assert words in found, words


def _nobody(rows: Any) -> Any:
    from django.db.models import F, Value

    return rows.none().annotate(hundredths=Value(0), limit=F("used_bytes"))


def test_each_sees_what_they_may_see(database: None) -> None:
    usage_only = home(browser_of(new_user("view_quotausage", is_staff=True)))
    nothing = home(browser_of(new_user(is_staff=True)))

    assert "Tenants near their limits" in usage_only
    assert "Last good drill" not in usage_only
    assert "Documents" not in usage_only
    assert "There is nothing here that you may see yet." in nothing


def test_nobody_but_staff_gets_in(alice: Person) -> None:
    for browser in (Client(), browser_of(User.objects.get(id=alice.user_id))):
        answer = browser.get("/admin/")
        assert (answer.status_code, answer["Location"]) == (302, "/admin/login/?next=/admin/")


def test_a_part_that_cannot_be_read_leaves_the_others(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engarde.common.admin_home.PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(spool, "DOCUMENTS", "SELECT pg_sleep(5), 0, 0, 0, 0")

    found = home(staff)

    assert "Content This could not be read in time; the log says why." in found
    assert "Tenants near their limits" in found


def test_it_asks_few_questions_however_much_there_is(staff: Client, alice: Person) -> None:
    jobs = [make_job(alice, status=JobStatus.PAUSED) for _ in range(8)]
    tenants = [people.new_owner(f"packed-{number}", storage_limit=100) for number in range(3)]
    home(staff)
    with CaptureQueriesContext(connection) as few:
        home(staff)
    for person in tenants:
        quota_house.store(person, 90, now=timezone.now())
    jobs += [make_job(alice, status=JobStatus.PAUSED) for _ in range(8)]
    try:
        with CaptureQueriesContext(connection) as many:
            home(staff)
    finally:
        with system_scope("a test tidies up"):
            Job.objects.filter(id__in=[job.id for job in jobs]).delete()
        for person in tenants:
            make_room(person)

    assert len(many) <= len(few) + 1, [query["sql"][:120] for query in many]
    assert len(many) <= MOST_QUERIES, [query["sql"][:120] for query in many]
