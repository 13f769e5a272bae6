"""The admin's pages for plans and usage: what staff see, and what they can do after being asked."""

import re
from datetime import timedelta
from html import unescape
from typing import Any
from uuid import uuid4

import pytest
from django.contrib.admin.models import LogEntry
from django.core import mail
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from engarde.accounts.models import Tenant, User
from engarde.common.scopes import system_scope
from quotas import courier, reconciliation
from quotas.models import Alert, AlertTarget, Plan, QuotaUsage, Reconciliation
from quotas.sizes import exact, parse, readable
from tests import people
from tests.people import PASSWORD, Person
from tests.quotas import house

LIMIT = 1000


@pytest.fixture
def staff(database: None) -> Client:
    """A browser in which a member of staff is logged in."""
    browser = Client()
    browser.force_login(User.objects.create_superuser(f"staff-{uuid4().hex[:12]}@example.com", PASSWORD))
    return browser


@pytest.fixture
def dora(database: None) -> Person:
    """Owner of a tenant that is nearly full, with something of everything."""
    person = people.new_owner("dora", storage_limit=LIMIT)
    house.store(person, 600, now=timezone.now() - timedelta(days=3))
    person.writes(type="article", body="x" * 260)
    house.reserve(person, size=50, items=3)
    return person


def page(browser: Client, path: str) -> str:
    answer = browser.get(path)
    assert answer.status_code == 200, (path, answer.status_code)
    return answer.content.decode()


def text(html: str) -> str:
    """Return what somebody reads of a page."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", html)).split())


def path_of(person: Person) -> str:
    return f"/admin/quotas/quotausage/{person.tenant_id}/change/"


def usage_of(person: Person) -> QuotaUsage:
    with system_scope("a test looks"):
        return QuotaUsage.objects.get(tenant_id=person.tenant_id)


def do(browser: Client, person: Person, action: str, **values: Any) -> Any:
    """Open an action's dialog, which changes nothing, and confirm it."""
    path = f"/admin/quotas/quotausage/{person.tenant_id}/{action}/"
    before = usage_of(person)
    assert "<form" in page(browser, path)
    assert usage_of(person).__dict__.keys() == before.__dict__.keys()
    assert usage_of(person).updated_at == before.updated_at
    return browser.post(path, {"_form_submitted": "True", **values})


def history_of(person: Person) -> list[str]:
    entries = LogEntry.objects.filter(object_id=str(person.tenant_id), content_type__model="quotausage")
    return [entry.change_message for entry in entries.order_by("action_time")]


# What staff see


def test_the_list_shows_how_full_tenants_are_and_finds_them(staff: Client, dora: Person, charlie: Person) -> None:
    found = text(page(staff, f"/admin/quotas/quotausage/?q={dora.tenant_id}"))

    assert "860 bytes of 1000 bytes 86.00 %" in found
    assert "high" in found
    assert "50 bytes" in found
    assert "charlie" not in found


@pytest.mark.parametrize(
    ("level", "size"), [("normal", 699), ("warning", 700), ("high", 850), ("critical", 950), ("exceeded", 1000)]
)
def test_the_list_is_filtered_by_level(staff: Client, database: None, level: str, size: int) -> None:
    person = people.new_owner(f"level-{level}", storage_limit=LIMIT)
    house.store(person, size)

    def is_listed(under: str) -> bool:
        listed = page(staff, f"/admin/quotas/quotausage/?level={under}&q={person.tenant_id}")
        return f"{person.tenant_id}/change/" in listed

    assert [under for under in ("normal", "warning", "high", "critical", "exceeded") if is_listed(under)] == [level]


def test_the_list_makes_no_query_a_row(staff: Client, database: None) -> None:
    def queries(count: int) -> int:
        name = f"many-{uuid4().hex[:8]}"
        for _ in range(count):
            person = people.new_owner("many")
            with system_scope("a test renames"):
                Tenant.objects.filter(id=person.tenant_id).update(name=name)
        with CaptureQueriesContext(connection) as captured:
            page(staff, f"/admin/quotas/quotausage/?q={name}")
        return len(captured)

    assert queries(1) == queries(8)


def test_the_page_explains_usage(staff: Client, dora: Person) -> None:
    courier.run(now=timezone.now)
    house.change_usage(dora, used_bytes=900)
    reconciliation.reconcile(tenant_id=dora.tenant_id, now=timezone.now())

    html = page(staff, path_of(dora))

    found = text(html)
    for expected in (
        "860 bytes of 1000 bytes 86.00 %",
        "90 bytes available",
        "50 bytes reserved",
        "The next plan that is large enough is starter",
        "post 1 · 600 bytes",
        "article 1 · 260 bytes",
        "3 items of",
        "85 % on",
        f"{dora.email}: Sent",
        "used_bytes: counted 900, really 860",
        "Set when the tenant was created.",
        "3 more reserved",
    ):
        assert expected in found, expected
    assert "<polyline" in html
    assert 'name="_save"' not in html


def test_a_new_and_an_unlimited_tenant_have_pages_too(staff: Client, charlie: Person) -> None:
    unlimited = people.new_owner(tier="enterprise")
    house.store(unlimited, 100)

    assert "Nothing is stored." in text(page(staff, path_of(charlie)))
    assert "100 bytes unlimited" in text(page(staff, path_of(unlimited)))


@pytest.mark.parametrize("tenant_id", ["nothing", uuid4()])
def test_a_tenant_that_is_not_there_leads_back(staff: Client, tenant_id: Any) -> None:
    answer = staff.get(f"/admin/quotas/quotausage/{tenant_id}/change/")

    assert answer.status_code == 302


@pytest.mark.parametrize("model", ["plan", "alert", "alerttarget", "reservation", "reconciliation"])
def test_the_other_lists_can_be_looked_at(staff: Client, dora: Person, model: str) -> None:
    reconciliation.run(now=timezone.now(), tenant_ids=[dora.tenant_id])
    page(staff, f"/admin/quotas/{model}/")


def test_rows_that_the_platform_writes_are_not_typed_in(staff: Client, dora: Person) -> None:
    run = Reconciliation.objects.create(started_at=timezone.now())

    for path in ("quotausage/add/", "alert/add/", "alerttarget/add/", "reservation/add/", "reconciliation/add/"):
        assert staff.get(f"/admin/quotas/{path}").status_code == 403
    assert staff.get(f"/admin/quotas/quotausage/{dora.tenant_id}/delete/").status_code == 403
    assert staff.post(f"/admin/quotas/reconciliation/{run.id}/change/", {}).status_code == 403
    assert staff.post(path_of(dora), {"plan": "enterprise", "used_bytes": "0"}).status_code == 302
    assert (usage_of(dora).plan_id, usage_of(dora).used_bytes) == ("free", 860)


def test_an_alert_and_a_target_have_pages_without_secrets(staff: Client, dora: Person) -> None:
    with system_scope("a test adds a target"):
        target = AlertTarget.objects.create(
            tenant_id=dora.tenant_id, kind="slack", url="encrypted-secret", url_hint="hooks.slack.com…wxyz"
        )
        alert = Alert.objects.get(tenant_id=dora.tenant_id)
    courier.fan_out(now=timezone.now())

    pages = [
        page(staff, f"/admin/quotas/alert/{alert.id}/change/"),
        page(staff, f"/admin/quotas/alerttarget/{target.id}/change/"),
    ]

    assert "hooks.slack.com…wxyz" in pages[0]
    assert not any("encrypted-secret" in one for one in pages)


# What staff can do


def test_a_plan_is_changed_after_being_asked_and_kept_in_the_history(staff: Client, dora: Person) -> None:
    answer = do(staff, dora, "change-plan", tier="business", reason="They paid.")

    assert answer["HX-Redirect"] == path_of(dora)
    assert usage_of(dora).plan_id == "business"
    assert history_of(dora) == ["Changed the plan from free to business: They paid."]
    assert "They paid." in page(staff, f"/admin/quotas/quotausage/{dora.tenant_id}/history/")


def test_a_plan_is_not_changed_without_a_reason(staff: Client, dora: Person) -> None:
    answer = do(staff, dora, "change-plan", tier="business", reason="")

    assert "HX-Redirect" not in answer
    assert "This field is required" in answer.content.decode()
    assert (usage_of(dora).plan_id, history_of(dora)) == ("free", [])


def test_limits_are_replaced_with_a_reason_and_given_back(staff: Client, dora: Person) -> None:
    refused = do(staff, dora, "override-limits", storage_bytes="2 GB", reason="")
    assert "Say why" in refused.content.decode()
    assert usage_of(dora).storage_limit_override == LIMIT

    do(staff, dora, "override-limits", storage_bytes="2 GB", generated_items="7", retention_days="3", reason="A trial.")
    usage = usage_of(dora)
    assert (usage.storage_limit_override, usage.generation_limit_override, usage.retention_days_override) == (
        2 * 1024**3,
        7,
        3,
    )
    assert usage.override_reason == "A trial."

    do(staff, dora, "override-limits", reason="")
    assert (usage_of(dora).storage_limit_override, usage_of(dora).override_reason) == (None, "")
    assert history_of(dora)[0].endswith(
        "to “storage: 2 GB, generated items a month: 7, retention in days: 3 (A trial.)”"
    )
    assert history_of(dora)[1].endswith("to “none: the plan's limits hold”")


@pytest.mark.parametrize("size", ["-1", "lots", "1.5 bytes", "9999999 PB", "1 XB", "NaN"])
def test_a_size_that_is_none_is_refused(staff: Client, dora: Person, size: str) -> None:
    answer = do(staff, dora, "override-limits", storage_bytes=size, reason="A test.")

    assert "HX-Redirect" not in answer
    assert usage_of(dora).storage_limit_override == LIMIT


def test_usage_is_recalculated(staff: Client, dora: Person) -> None:
    house.change_usage(dora, used_bytes=1)

    do(staff, dora, "recalculate", reason="A customer asked.")

    assert usage_of(dora).used_bytes == 860
    assert history_of(dora) == ["Recalculated: used_bytes: counted 1, really 860. A customer asked."]
    do(staff, dora, "recalculate", reason="Once more.")
    assert history_of(dora)[-1] == "Recalculated: everything was right. Once more."


def test_an_alert_is_sent_again_from_both_pages(staff: Client, dora: Person) -> None:
    courier.run(now=timezone.now)
    with system_scope("a test looks"):
        alert = Alert.objects.get(tenant_id=dora.tenant_id)

    do(staff, dora, "send-alert-again", alert=str(alert.id))
    courier.run(now=timezone.now)
    staff.post(f"/admin/quotas/alert/{alert.id}/send-again/", {"_form_submitted": "True"})
    courier.run(now=timezone.now)

    assert len([message for message in mail.outbox if message.to == [dora.email]]) == 3
    assert history_of(dora)[0].endswith("again to 1 recipients")
    assert LogEntry.objects.filter(object_id=str(alert.id)).count() == 1


def test_an_alert_of_another_tenant_is_not_sent(staff: Client, dora: Person, charlie: Person) -> None:
    with system_scope("a test looks"):
        alert = Alert.objects.get(tenant_id=dora.tenant_id)

    answer = do(staff, charlie, "send-alert-again", alert=str(alert.id))

    assert "HX-Redirect" not in answer


@pytest.mark.parametrize("action", ["change-plan", "override-limits", "recalculate", "send-alert-again"])
def test_staff_who_may_only_look_cannot_do_anything(database: None, dora: Person, action: str) -> None:
    from django.contrib.auth.models import Permission

    user = User.objects.create_user(f"viewer-{uuid4().hex[:12]}@example.com", PASSWORD, is_staff=True)
    user.user_permissions.add(Permission.objects.get(codename="view_quotausage"))
    browser = Client()
    browser.force_login(user)

    assert "Change plan" not in page(browser, path_of(dora))
    path = f"/admin/quotas/quotausage/{dora.tenant_id}/{action}/"
    values = {"_form_submitted": "True", "tier": "enterprise", "reason": "Mine.", "storage_bytes": "1 PB"}
    assert browser.post(path, values).status_code == 403
    assert (usage_of(dora).plan_id, usage_of(dora).storage_limit_override) == ("free", LIMIT)


@pytest.mark.parametrize("action", ["change-plan", "override-limits", "recalculate", "send-alert-again"])
def test_nobody_else_gets_in(dora: Person, action: str) -> None:
    browser = Client()

    assert browser.get(path_of(dora)).status_code == 302
    assert (
        browser.post(f"/admin/quotas/quotausage/{dora.tenant_id}/{action}/", {"tier": "enterprise"}).status_code == 302
    )
    assert usage_of(dora).plan_id == "free"


def test_a_form_without_its_token_does_nothing(dora: Person) -> None:
    browser = Client(enforce_csrf_checks=True)
    browser.force_login(User.objects.create_superuser(f"staff-{uuid4().hex[:12]}@example.com", PASSWORD))

    answer = browser.post(
        f"/admin/quotas/quotausage/{dora.tenant_id}/change-plan/",
        {"_form_submitted": "True", "tier": "enterprise", "reason": "Forged."},
    )

    assert (answer.status_code, usage_of(dora).plan_id) == (403, "free")


# Plans


def test_a_plan_is_made_changed_and_removed(staff: Client) -> None:
    answer = staff.post(
        "/admin/quotas/plan/add/",
        {"tier": "test-admin", "rank": "97", "storage_limit_bytes": "1.5 TB", "price_usd_month": "12.50"},
    )
    assert answer.status_code == 302, answer.context["adminform"].form.errors
    plan = Plan.objects.get(tier="test-admin")
    assert (plan.storage_limit_bytes, plan.retention_days, str(plan.price_usd_month)) == (1536 * 1024**3, None, "12.50")

    form = page(staff, "/admin/quotas/plan/test-admin/change/")
    assert 'value="1536 GB"' in form
    staff.post("/admin/quotas/plan/test-admin/change/", {"rank": "97", "storage_limit_bytes": ""})
    assert Plan.objects.get(tier="test-admin").storage_limit_bytes is None
    assert "1.5 TB" not in page(staff, "/admin/quotas/plan/")

    staff.post("/admin/quotas/plan/test-admin/delete/", {"post": "yes"})
    assert not Plan.objects.filter(tier="test-admin").exists()


def test_a_plan_that_tenants_are_on_stays(staff: Client, dora: Person) -> None:
    staff.post("/admin/quotas/plan/free/delete/", {"post": "yes"})

    assert Plan.objects.filter(tier="free").exists()


# Sizes


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1023 bytes"),
        (1024, "1 KB"),
        (1536, "1.5 KB"),
        (10 * 1024**3, "10 GB"),
        (1024**4, "1 TB"),
        (123_456_789, "118 MB"),
        (2**62, "4096 PB"),
    ],
)
def test_sizes_are_readable(size: int, shown: str) -> None:
    assert readable(size) == shown


@pytest.mark.parametrize("size", [0, 1, 1023, 1024, 1536, 5 * 1024**3, 2**62, 123_456_789])
def test_what_is_shown_in_a_form_means_the_same_when_it_comes_back(size: int) -> None:
    assert parse(exact(size)) == size


@pytest.mark.parametrize(
    ("written", "size"), [("500", 500), (" 1 kb ", 1024), ("1.5M", 1572864), ("2GB", 2 * 1024**3), ("1 byte", 1)]
)
def test_sizes_are_read_as_people_write_them(written: str, size: int) -> None:
    assert parse(written) == size
