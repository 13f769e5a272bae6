"""The admin's pages for the backup: what staff see, the three buttons, and that nothing else can be done."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.utils import timezone

from dr import figures, states
from dr.models import Batch, Drill, Erasure, Finding, Restore, Run, Verification
from engarde.accounts.models import User
from engarde.common import wake
from engarde.common.middleware import WakeAfterWritesMiddleware
from engarde.common.scopes import system_scope
from tests.dr import backup_house as house
from tests.people import Person

ADMIN = "/admin/dr"
BACKUP = f"{ADMIN}/syncstate/1/change/"
BUTTONS = ["pause", "resume", "run"]
AHEAD = datetime(2096, 1, 1, tzinfo=UTC)
MODELS = [Run, Batch, Finding, Verification, Restore, Drill, Erasure]


@pytest.fixture(autouse=True)
def _well(database: None, settings: Any) -> Iterator[None]:
    settings.BIGQUERY_SYNC_ENABLED = True
    house.make_well()
    yield
    house.make_well()
    with system_scope("a test tidies up"):
        for model in (Run, Verification, Drill, Restore):
            model.objects.filter(started_at__gte=AHEAD).delete()
        Erasure.objects.filter(requested_at__gte=AHEAD).delete()
        Batch.objects.filter(sealed_at__gte=AHEAD).delete()


@pytest.fixture
def wakes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tasks that were woken."""
    woken: list[str] = []
    monkeypatch.setattr(wake, "after_commit", woken.append)
    monkeypatch.setattr(WakeAfterWritesMiddleware, "__call__", lambda self, request: self.get_response(request))
    return woken


@pytest.fixture
def sam(database: None) -> User:
    """A member of staff who may do everything."""
    return house.new_user("sam", is_staff=True, is_superuser=True)


@pytest.fixture
def staff(sam: User) -> Client:
    """A browser in which that member of staff is logged in."""
    return house.browser_of(sam)


@pytest.fixture
def looker(database: None) -> Client:
    """A browser of somebody who may look and nothing else."""
    permissions = [f"view_{model._meta.model_name}" for model in MODELS]
    return house.browser_of(house.new_user("looker", "view_syncstate", *permissions, is_staff=True))


def page(browser: Client, path: str) -> str:
    answer = browser.get(path)
    assert answer.status_code == 200, (path, answer.status_code)
    return answer.content.decode()


def text(html: str) -> str:
    """Return what somebody reads of a page."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def press(browser: Client, button: str) -> str:
    """Press a button of the backup's page and return what the page says then."""
    answer = browser.post(f"{ADMIN}/syncstate/act/{button}/")
    assert (answer.status_code, answer["Location"]) == (302, BACKUP)
    return text(page(browser, BACKUP))


def rows() -> dict[Any, Any]:
    """Make a row of each model."""
    with system_scope("a test makes rows"):
        verification = Verification.objects.create(started_at=AHEAD, finished_at=AHEAD, checked=5, missing=1)
        fields = {"tenant_id": uuid4(), "entity_type": "content", "entity_id": uuid4(), "tier": "zerodb"}
        return {
            Run: Run.objects.create(started_at=AHEAD, finished_at=AHEAD, status="failing", reason="quota exceeded"),
            Batch: house.batch(sealed_at=AHEAD, set_aside_at=AHEAD, last_error="row too large"),
            Verification: verification,
            Finding: Finding.objects.create(
                verification_id=verification.id, found_at=AHEAD, kind="missing", problem="ZeroDB lacks it", **fields
            ),
            Restore: Restore.objects.create(started_at=AHEAD, tiers=["zerodb"], ok=True, report={"changed": 31}),
            Drill: Drill.objects.create(
                started_at=AHEAD, scenario="tenant_deletion", ok=True, items=40, rto_seconds=7.5, rpo_seconds=1.5
            ),
            Erasure: Erasure.objects.create(tenant_id=uuid4(), requested_at=AHEAD, reason="a wish"),
        }


# The backup's page


def test_the_list_leads_to_the_one_page(staff: Client) -> None:
    answer = staff.get(f"{ADMIN}/syncstate/")

    assert (answer.status_code, answer["Location"]) == (302, BACKUP)


def test_the_page_shows_how_the_backup_is(staff: Client, sam: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "oldest_waiting_at", lambda: timezone.now() - timedelta(hours=2))
    states.note_success(now=AHEAD)
    states.pause(by=sam.id, now=AHEAD)
    rows()

    found = text(page(staff, BACKUP))

    for expected in (
        "Paused since 2096-01-01 00:00 UTC",
        f"Paused by {sam.email}",
        "the oldest for 2 h; promised are 15 min",
        "more could be lost than promised",
        "1 batch is set aside",
        "Last success: 1 Jan 2096, 00:00:00 UTC",
        "failing, 0 changes in 0 batches; quota exceeded",
        "ZeroDB lacks it",
        "tenant_deletion : all right, 40 items, 0 lost, 0 mismatched, RTO 7.5 s, RPO 1.5 s",
        "5 checked, 0 mismatched, 1 missing, 0 extra, 0 repaired",
    ):
        assert expected in found, expected
    assert 'name="_save"' not in page(staff, BACKUP)


def test_the_page_draws_lag_and_rpo_without_a_script_of_its_own(staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "oldest_waiting_at", lambda: timezone.now() - timedelta(hours=2))
    figures.note(now=timezone.now(), rows=2, bytes=2048, batches=1, ages=[1.5, 3])

    html = page(staff, BACKUP)

    charts = re.findall(r"<svg viewBox.*?</svg>", html, re.DOTALL)
    assert len(charts) == 2
    lag, rpo = charts
    points = re.findall(r'<polyline points="([^"]+)"', lag)[0].split()
    heights = [float(point.split(",")[1]) for point in points]
    assert len(points) == 96
    assert heights[-1] == min(heights) < heights[0], "the lag of now is the largest, and drawn highest"
    assert "most 2 h" in lag
    assert "<rect" in rpo
    assert "99 % within" in rpo
    assert "<script" not in lag + rpo
    assert 'stroke="currentColor"' in lag, "drawn in the theme's colour"
    assert "Today:" in text(html)


def test_what_an_archive_said_is_shown_as_text(staff: Client) -> None:
    states.note_failure(status="failing", reason="<script>x</script>", now=AHEAD, probe_at=None)

    html = page(staff, BACKUP)

    assert "<script>x</script>" not in html
    assert "&lt;script&gt;x&lt;/script&gt;" in html


def test_the_page_works_before_the_backup_ever_ran(staff: Client) -> None:
    assert "Last success: never." in text(page(staff, BACKUP))


# Buttons


def test_it_is_paused_and_resumed_by_buttons_and_kept_in_the_history(
    staff: Client, sam: User, wakes: list[str]
) -> None:
    assert "act/pause/" in page(staff, BACKUP)

    assert "The backup is paused." in press(staff, "pause")
    assert house.row().paused_by == sam.id
    assert "act/resume/" in page(staff, BACKUP)
    assert "The backup was paused already." in press(staff, "pause")
    assert "The backup goes on." in press(staff, "resume")
    assert house.row().paused_at is None

    entries = LogEntry.objects.filter(user=sam, content_type__model="syncstate").order_by("action_time")
    assert [entry.change_message for entry in entries] == [
        "The backup is paused.",
        "The backup was paused already.",
        "The backup goes on.",
    ]
    assert wakes == ["dr.sync"]


def test_it_runs_when_asked_to(staff: Client, wakes: list[str]) -> None:
    assert "The backup runs now." in press(staff, "run")
    assert wakes == ["dr.sync"]


def test_it_does_not_run_while_it_is_paused(staff: Client, wakes: list[str]) -> None:
    states.pause(by=None, now=AHEAD)

    assert "The backup is paused; resume it first." in press(staff, "run")
    assert wakes == []


def test_a_batch_that_is_set_aside_is_tried_again(staff: Client, sam: User, wakes: list[str]) -> None:
    made = rows()[Batch]
    done = house.batch(sealed_at=AHEAD, acked_at=AHEAD)
    chosen = {"action": "try_again", "_selected_action": [str(made.id), str(done.id)]}

    answer = staff.post(f"{ADMIN}/batch/", chosen, follow=True)

    assert "1 of the chosen batches are tried now" in text(answer.content.decode())
    assert Batch.objects.get(id=made.id).next_try_at <= timezone.now()
    assert Batch.objects.get(id=done.id).next_try_at > timezone.now()
    assert wakes == ["dr.sync"]
    [entry] = LogEntry.objects.filter(user=sam, content_type__model="batch")
    assert entry.object_id == str(made.id)


# Lists


@pytest.mark.parametrize("model", MODELS)
def test_every_list_and_row_has_a_page(staff: Client, model: Any) -> None:
    row = rows()[model]
    name = model._meta.model_name

    listed = page(staff, f"{ADMIN}/{name}/")
    page(staff, f"{ADMIN}/{name}/?q={row.pk}")
    shown = page(staff, f"{ADMIN}/{name}/{row.pk}/change/")

    assert str(row.pk) in listed
    assert 'name="_save"' not in shown


@pytest.mark.parametrize(
    ("path", "model", "is_there"),
    [
        ("batch/?state=aside", Batch, True),
        ("batch/?state=waiting", Batch, False),
        ("batch/?state=acknowledged", Batch, False),
        ("finding/?open=yes", Finding, True),
        ("finding/?open=no", Finding, False),
    ],
)
def test_lists_are_filtered(staff: Client, path: str, model: Any, is_there: bool) -> None:
    made = rows()[model]

    assert (str(made.pk) in page(staff, f"{ADMIN}/{path}")) is is_there


@pytest.mark.parametrize("model", MODELS)
def test_nothing_is_typed_in_or_deleted(staff: Client, model: Any) -> None:
    row = rows()[model]
    root = f"{ADMIN}/{model._meta.model_name}"

    assert staff.get(f"{root}/add/").status_code == 403
    assert staff.post(f"{root}/{row.pk}/delete/", {"post": "yes"}).status_code == 403
    assert staff.post(f"{root}/{row.pk}/change/", {"reason": "x", "status": "x"}).status_code == 403
    staff.post(f"{root}/", {"action": "delete_selected", "_selected_action": str(row.pk), "post": "yes"})

    with system_scope("a test looks"):
        assert model.objects.filter(pk=row.pk).exists()


# Who is kept out


@pytest.mark.parametrize("button", BUTTONS)
def test_who_may_only_look_sees_no_button_and_presses_none(looker: Client, wakes: list[str], button: str) -> None:
    html = page(looker, BACKUP)

    assert "/act/" not in html
    assert "changes wait" in text(html)
    assert looker.post(f"{ADMIN}/syncstate/act/{button}/").status_code == 403
    assert (house.row().paused_at, wakes) == (None, [])


def test_who_may_only_look_tries_no_batch_again(looker: Client, wakes: list[str]) -> None:
    made = rows()[Batch]

    html = looker.post(f"{ADMIN}/batch/", {"action": "try_again", "_selected_action": str(made.id)}, follow=True)

    assert "Try again now" not in html.content.decode()
    assert Batch.objects.get(id=made.id).next_try_at > timezone.now()
    assert wakes == []


def test_staff_without_permission_see_nothing(database: None) -> None:
    browser = house.browser_of(house.new_user("other", is_staff=True))

    for path in (BACKUP, f"{ADMIN}/syncstate/", *(f"{ADMIN}/{model._meta.model_name}/" for model in MODELS)):
        assert browser.get(path).status_code == 403, path


def test_nobody_else_gets_in(alice: Person, wakes: list[str]) -> None:
    member = house.browser_of(User.objects.get(id=alice.user_id))

    for browser in (Client(), member):
        assert browser.get(BACKUP).status_code == 302
        for button in BUTTONS:
            answer = browser.post(f"{ADMIN}/syncstate/act/{button}/")
            assert answer["Location"].startswith("/admin/login/")
    assert (house.row().paused_at, wakes) == (None, [])


@pytest.mark.parametrize("button", BUTTONS)
def test_a_button_takes_a_form_with_its_token_alone(sam: User, wakes: list[str], button: str) -> None:
    browser = house.browser_of(sam, enforce_csrf_checks=True)

    assert browser.get(f"{ADMIN}/syncstate/act/{button}/").status_code == 405
    assert browser.post(f"{ADMIN}/syncstate/act/{button}/").status_code == 403
    assert (house.row().paused_at, wakes) == (None, [])


def test_there_is_no_other_button(staff: Client) -> None:
    assert staff.post(f"{ADMIN}/syncstate/act/delete/").status_code == 404
