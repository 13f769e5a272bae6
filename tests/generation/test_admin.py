"""The admin's pages for generation: what staff see of jobs and keys, and what they can do after being asked."""

import re
from collections.abc import Iterator
from html import unescape
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from engarde.accounts.models import User
from engarde.common.scopes import system_scope
from generation.models import Job, LLMKey, LLMKeyEvent
from tests.generation import house
from tests.generation.sockets import Hand
from tests.people import PASSWORD, Person
from tests.providers import Provider

JOBS, KEYS, EVENTS = "/admin/generation/job/", "/admin/generation/llmkey/", "/admin/generation/llmkeyevent/"
LISTS = (JOBS, KEYS, EVENTS)
ACTIONS = ("cancel", "resume", "retry")


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    with Provider() as running, house.reaching(running):
        yield running


@pytest.fixture
def staff(database: None) -> Client:
    """A browser in which a member of staff is logged in."""
    browser = Client()
    browser.force_login(User.objects.create_superuser(f"staff-{uuid4().hex[:12]}@example.com", PASSWORD))
    return browser


@pytest.fixture
def dora(database: None, provider: Provider) -> Person:
    """Owner of a tenant with a provider key."""
    return house.new_studio("dora")


def hand_of(person: Person, count: int, *, done: int = 0, failed: int = 0, **fields: Any) -> Hand:
    """Queue a job and finish some of its items."""
    hand = Hand(person, house.start(person, count, concurrency=100, **fields))
    if done:
        hand.finish(done, look=False)
    if failed:
        hand.finish(failed, error="llm_refused", look=False)
    return hand


def page(browser: Client, path: str) -> str:
    answer = browser.get(path)
    assert answer.status_code == 200, (path, answer.status_code)
    return answer.content.decode()


def text(html: str) -> str:
    """Return what somebody reads of a page."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def path_of(job_id: UUID) -> str:
    return f"{JOBS}{job_id}/change/"


def job(job_id: UUID) -> Job:
    with system_scope("a test looks"):
        return Job.objects.get(id=job_id)


def key_of(person: Person) -> LLMKey:
    with system_scope("a test looks"):
        return LLMKey.objects.get(tenant_id=person.tenant_id)


def do(browser: Client, job_id: UUID, action: str) -> str:
    """Open an action's dialog, which changes nothing, confirm it, and return what the page says then."""
    path = f"{JOBS}{job_id}/{action}/"
    before = job(job_id)
    assert "<form" in page(browser, path)
    assert job(job_id).status == before.status
    answer = browser.post(path, {"_form_submitted": "True"})
    assert answer["HX-Redirect"] == path_of(job_id)
    return text(page(browser, path_of(job_id)))


def history_of(job_id: UUID) -> list[str]:
    entries = LogEntry.objects.filter(object_id=str(job_id), content_type__model="job")
    return [entry.change_message for entry in entries.order_by("action_time")]


# What staff see


def test_the_list_shows_how_far_jobs_are_and_finds_them(staff: Client, dora: Person) -> None:
    hand = hand_of(dora, 8, done=3, failed=1)
    other = hand_of(house.new_studio("edgar"), 1)

    html = page(staff, f"{JOBS}?q={dora.tenant_id}")

    found = text(html)
    for expected in ("Running", "3 of 8", "37.5 %", "openai gpt-test", "dora"):
        assert expected in found, expected
    assert str(hand.job_id) in html
    assert str(other.job_id) not in html
    assert str(hand.job_id) in page(staff, f"{JOBS}?q={hand.job_id}")


def test_the_list_is_filtered_by_status(staff: Client, dora: Person) -> None:
    running, cancelled = hand_of(dora, 2, done=1), hand_of(dora, 2)
    dora.api.delete(f"/api/content/generation-jobs/{cancelled.job_id}")

    html = page(staff, f"{JOBS}?status__exact=cancelled&q={dora.tenant_id}")

    assert str(cancelled.job_id) in html
    assert str(running.job_id) not in html


def test_the_list_makes_no_query_a_row(staff: Client, database: None, provider: Provider) -> None:
    def queries(count: int) -> int:
        person = house.new_studio("many")
        for _ in range(count):
            hand_of(person, 1)
        with CaptureQueriesContext(connection) as captured:
            page(staff, f"{JOBS}?q={person.tenant_id}")
        return len(captured)

    assert queries(1) == queries(6)


def test_the_page_shows_counts_errors_and_the_failed_items(staff: Client, dora: Person) -> None:
    hand = hand_of(dora, 10, done=4, failed=3)

    html = page(staff, path_of(hand.job_id))

    found = text(html)
    for expected in (
        "4 of 10",
        "40.0 %",
        "4 completed",
        "3 failed",
        "3 pending",
        "3 \N{MULTIPLICATION SIGN} llm_refused",
        "Items: failed",
    ):
        assert expected in found, expected
    assert "10 post, 100 at once" in found
    assert html.count("<td>llm_refused</td>") == 3
    assert 'hx-trigger="every 3s"' in html
    assert 'name="_save"' not in html


def test_the_page_shows_the_items_of_a_status_by_pages(staff: Client, dora: Person) -> None:
    hand = hand_of(dora, 60, done=55)

    first = page(staff, f"{path_of(hand.job_id)}?items=completed")
    second = page(staff, f"{path_of(hand.job_id)}?items=completed&page=2")

    assert "Page 1 of 2" in text(first)
    assert "Page 2 of 2" in text(second)
    content_ids = house.job_of(dora, hand.job_id)["generated_content_ids"]
    assert [one for one in content_ids if one in first] == content_ids[:50]
    assert [one for one in content_ids if one in second] == content_ids[50:]


@pytest.mark.parametrize(
    "query",
    [
        *("items=nothing", "items=", "page=0", "page=x", "page=99", "items='"),
        pytest.param("items=%00"),
    ],
)
def test_a_query_that_means_nothing_breaks_no_page(staff: Client, dora: Person, query: str) -> None:
    hand = hand_of(dora, 2, done=1)

    assert "1 of 2" in text(page(staff, f"{path_of(hand.job_id)}?{query}"))


def test_a_page_of_a_job_that_ended_is_not_read_again_and_again(staff: Client, dora: Person) -> None:
    hand = hand_of(dora, 2, done=2)

    html = page(staff, path_of(hand.job_id))

    assert "Completed" in text(html)
    assert "every 3s" not in html


@pytest.mark.parametrize(
    "job_id",
    [
        pytest.param("nothing"),
        pytest.param(uuid4(), id="unknown"),
    ],
)
def test_a_job_that_is_not_there_leads_back(staff: Client, job_id: Any) -> None:
    assert staff.get(f"{JOBS}{job_id}/change/").status_code == 302


def test_what_models_said_is_shown_as_text(staff: Client, dora: Person) -> None:
    hand = hand_of(dora, 1)
    hand.finish(error="<script>x</script>", look=False)

    html = page(staff, path_of(hand.job_id))

    assert "<script>x</script>" not in html
    assert "&lt;script&gt;x&lt;/script&gt;" in html


def test_keys_and_their_events_have_pages_without_the_keys(staff: Client, dora: Person) -> None:
    key = key_of(dora)
    with system_scope("a test looks"):
        events = list(LLMKeyEvent.objects.filter(tenant_id=dora.tenant_id))

    listed = page(staff, f"{KEYS}?q={dora.tenant_id}")
    pages = [
        listed,
        page(staff, f"{KEYS}{key.pk}/change/"),
        page(staff, f"{EVENTS}?q={dora.tenant_id}"),
        *(page(staff, f"{EVENTS}{event.pk}/change/") for event in events),
        page(staff, f"{JOBS}?q={dora.tenant_id}"),
        page(staff, path_of(hand_of(dora, 1).job_id)),
    ]

    assert {event.action for event in events} == {"stored", "checked"}
    for expected in ("OpenAI", house.KEY[-4:], "valid"):
        assert expected in text(listed)
    for html in pages:
        assert house.KEY not in html
        assert key.secret not in html
        assert dora.credentials["HTTP_X_API_KEY"] not in html


# What staff can do


def test_a_job_is_cancelled_after_being_asked_and_kept_in_the_history(staff: Client, dora: Person) -> None:
    hand = hand_of(dora, 5, done=2)

    assert "The job is cancelled." in do(staff, hand.job_id, "cancel")

    shown = house.job_of(dora, hand.job_id)
    assert (shown["status"], shown["progress"]) == ("cancelled", 2)
    assert [one["status"] for one in house.items_of(dora, hand.job_id)] == ["completed"] * 2 + ["cancelled"] * 3
    assert history_of(hand.job_id) == ["The job is cancelled."]
    assert dora.api.get("/api/content/quota").json()["usage"]["reserved_bytes"] == 0


def test_a_paused_job_is_resumed(staff: Client, dora: Person) -> None:
    hand = hand_of(dora, 3, done=1)
    hand.pause()
    assert "Paused" in text(page(staff, path_of(hand.job_id)))

    assert "The job goes on." in do(staff, hand.job_id, "resume")

    assert job(hand.job_id).status == "pending"
    house.work(dora, hand.job_id)
    assert job(hand.job_id).status == "completed"
    assert history_of(hand.job_id) == ["The job goes on."]


def test_failed_items_are_tried_again(staff: Client, dora: Person) -> None:
    hand = hand_of(dora, 4, done=2, failed=2)

    assert "The failed items are tried again." in do(staff, hand.job_id, "retry")

    house.work(dora, hand.job_id)
    shown = house.job_of(dora, hand.job_id)
    assert (shown["status"], shown["progress"], shown["failed"]) == ("completed", 4, 0)
    assert history_of(hand.job_id) == ["The failed items are tried again."]


@pytest.mark.parametrize(
    ("state", "offered"),
    [
        ("running", ["cancel"]),
        ("paused", ["cancel", "resume"]),
        ("completed", []),
        ("completed_with_errors", ["retry"]),
        ("cancelled", []),
    ],
)
def test_a_job_is_offered_what_can_be_done_with_it(staff: Client, dora: Person, state: str, offered: list[str]) -> None:
    failed = {"completed": 0, "completed_with_errors": 2}
    hand = hand_of(dora, 3, done=3 - failed.get(state, 2), failed=failed.get(state, 1))
    if state == "paused":
        hand.pause()
    if state == "cancelled":
        do(staff, hand.job_id, "cancel")

    html = page(staff, path_of(hand.job_id))

    assert job(hand.job_id).status == state
    assert [action for action in ACTIONS if f"/{action}/" in html] == offered


@pytest.mark.parametrize(
    ("action", "done", "problem"),
    [
        ("cancel", 2, "The job has ended already: it is completed."),
        ("resume", 1, "Only a paused job can be resumed; this one is running."),
        ("retry", 1, "its failed items can be tried again once it has ended"),
        ("retry", 2, "No item of the job failed."),
    ],
)
def test_what_cannot_be_done_is_explained(staff: Client, dora: Person, action: str, done: int, problem: str) -> None:
    hand = hand_of(dora, 2, done=done)
    before = job(hand.job_id).status

    assert problem in do(staff, hand.job_id, action)

    assert job(hand.job_id).status == before
    assert history_of(hand.job_id) == []


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("job_id", ["nothing", uuid4()], ids=["malformed", "unknown"])
def test_nothing_is_done_to_a_job_that_is_not_there(staff: Client, action: str, job_id: Any) -> None:
    answer = staff.post(f"{JOBS}{job_id}/{action}/", {"_form_submitted": "True"})

    assert answer.headers["HX-Redirect"] == JOBS


def test_nothing_is_typed_in_or_deleted(staff: Client, dora: Person) -> None:
    hand, key = hand_of(dora, 2), key_of(dora)
    with system_scope("a test looks"):
        event = LLMKeyEvent.objects.filter(tenant_id=dora.tenant_id).first()
    assert event

    for path in LISTS:
        assert staff.get(f"{path}add/").status_code == 403
        assert staff.post(f"{path}add/", {}).status_code == 403
    for path in (f"{JOBS}{hand.job_id}", f"{KEYS}{key.pk}", f"{EVENTS}{event.pk}"):
        assert staff.get(f"{path}/delete/").status_code == 403
        assert staff.post(f"{path}/delete/", {"post": "yes"}).status_code == 403
        staff.post(f"{path}/change/", {"status": "completed", "last4": "xxxx", "provider": "google"})
    for path, row in ((JOBS, hand.job_id), (KEYS, key.pk), (EVENTS, event.pk)):
        staff.post(path, {"action": "delete_selected", "_selected_action": str(row), "post": "yes"})
    assert job(hand.job_id).status == "pending"
    assert (key_of(dora).last4, key_of(dora).provider) == (house.KEY[-4:], "openai")


# Who is kept out


@pytest.mark.parametrize("action", ACTIONS)
def test_staff_who_may_only_look_cannot_do_anything(database: None, dora: Person, action: str) -> None:
    hand = hand_of(dora, 3, done=1)
    user = User.objects.create_user(f"viewer-{uuid4().hex[:12]}@example.com", PASSWORD, is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_job"))
    browser = Client()
    browser.force_login(user)

    html = page(browser, path_of(hand.job_id))

    assert f"/{action}/" not in html
    assert browser.get(KEYS).status_code == 403
    assert browser.post(f"{JOBS}{hand.job_id}/{action}/", {"_form_submitted": "True"}).status_code == 403
    assert job(hand.job_id).status == "running"


def test_nobody_else_gets_in(dora: Person) -> None:
    hand = hand_of(dora, 3, done=1)
    member = Client()
    member.force_login(User.objects.get(id=dora.user_id))

    for browser in (Client(), member):
        for path in (*LISTS, path_of(hand.job_id), f"{KEYS}{key_of(dora).pk}/change/"):
            answer = browser.get(path)
            assert answer.status_code == 302
            assert answer["Location"].startswith("/admin/login/")
        for action in ACTIONS:
            assert browser.post(f"{JOBS}{hand.job_id}/{action}/", {"_form_submitted": "True"}).status_code == 302
    assert job(hand.job_id).status == "running"


def test_a_form_without_its_token_does_nothing(dora: Person) -> None:
    hand = hand_of(dora, 2, done=1)
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(User.objects.create_superuser(f"staff-{uuid4().hex[:12]}@example.com", PASSWORD))

    answer = browser.post(f"{JOBS}{hand.job_id}/cancel/", {"_form_submitted": "True"})

    assert (answer.status_code, job(hand.job_id).status) == (403, "running")
