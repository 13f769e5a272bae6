"""Mail about alerts: to whom, what it says, one digest instead of many, retried, and recorded."""

from datetime import UTC, datetime, timedelta
from email.utils import parseaddr
from typing import Any

import pytest
from django.conf import LazySettings
from django.core import mail
from django.core.mail.backends.locmem import EmailBackend
from django.utils import timezone

from engarde.accounts.models import Membership, User
from engarde.common.scopes import system_scope
from quotas import courier
from quotas.models import Alert, AlertDelivery
from quotas.tasks import send_alerts
from tests import people
from tests.people import Person
from tests.quotas import house

LIMIT = 1000
MORNING = datetime(2027, 3, 1, 9, tzinfo=UTC)
Status = AlertDelivery.Status


@pytest.fixture(autouse=True)
def nothing_left(database: None) -> None:
    """Each test begins with nothing to send."""
    with system_scope("a test begins"):
        Alert.objects.all().delete()


@pytest.fixture
def dora(database: None) -> Person:
    """Owner of a tenant that may store 1,000 bytes."""
    return people.new_owner("dora", storage_limit=LIMIT)


def another_studio(person: Person, name: str) -> Person:
    """Make one more tenant of somebody's."""
    from quotas import operations

    new = operations.create_tenant(
        name=name,
        tier="free",
        email=person.email,
        password=people.PASSWORD,
        brand_name=name,
        storage_limit=LIMIT,
        now=timezone.now(),
    )
    return Person(person.email, new.owner.id, new.tenant.id, new.brand.id, {"HTTP_X_API_KEY": new.api_key})


def run(now: datetime) -> int:
    return courier.run(now=lambda: now)


def got(address: str) -> list[str]:
    """Return the subjects of all mail to an address."""
    return [str(message.subject) for message in mail.outbox if message.to == [address]]


def deliveries(person: Person) -> list[AlertDelivery]:
    with house.inside(person) as tenant_id:
        return list(AlertDelivery.objects.filter(tenant_id=tenant_id).select_related("alert").order_by("id"))


# To whom


def test_owners_and_admins_get_it_and_nobody_else(dora: Person) -> None:
    admin, owner = people.new_colleague(dora, "admin"), people.new_colleague(dora, "owner", "olga")
    others = [people.new_colleague(dora, role) for role in ("editor", "viewer")]
    left = people.new_colleague(dora, "admin", "leo")
    User.objects.filter(id=left.user_id).update(is_active=False)
    invited = people.new_colleague(dora, "admin", "ida")
    with system_scope("a test invites"):
        Membership.objects.filter(user_id=invited.user_id).update(accepted_at=None)

    house.store(dora, 700, now=MORNING)

    assert run(MORNING) == 3
    assert [len(got(person.email)) for person in (dora, admin, owner)] == [1, 1, 1]
    assert [len(got(person.email)) for person in (*others, left, invited)] == [0, 0, 0, 0]


def test_somebody_who_is_no_admin_any_more_when_it_is_sent_does_not_get_it(dora: Person) -> None:
    admin = people.new_colleague(dora, "admin")
    house.store(dora, 700, now=MORNING)
    courier.fan_out(now=MORNING)
    with system_scope("a test changes a role"):
        Membership.objects.filter(user_id=admin.user_id).update(role="viewer")

    run(MORNING)

    assert (got(admin.email), len(got(dora.email))) == ([], 1)
    assert sorted(row.status for row in deliveries(dora)) == [Status.DROPPED, Status.SENT]


def test_the_write_wakes_the_sender_and_the_task_sends(dora: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[str] = []
    monkeypatch.setattr("engarde.common.wake.after_commit", woken.append)

    house.store(dora, 699)
    assert "quotas.send_alerts" not in woken
    house.store(dora, 1)
    assert "quotas.send_alerts" in woken
    send_alerts.run()

    assert len(got(dora.email)) == 1


# What it says


def message_of(person: Person) -> Any:
    [message] = [message for message in mail.outbox if message.to == [person.email]]
    return message


def test_it_says_what_is_used_and_what_can_be_done_in_text_and_html(dora: Person, settings: LazySettings) -> None:
    settings.UPGRADE_URL = "https://studio.example.com/plans?a=1&b=2"
    trashed = dora.writes(body="x" * 60)["id"]
    dora.api.delete(f"/api/content/{trashed}")
    house.store(dora, 855, now=MORNING)

    run(MORNING)

    message = message_of(dora)
    [(html, kind)] = message.alternatives
    assert kind == "text/html"
    assert "has used 85 % of its storage" in message.subject
    for text in (message.body, html):
        for expected in ("855 bytes of 1000 bytes", "85.50", "145 bytes", "60 bytes", "starter", "10 GB", "29.00 USD"):
            assert expected in text
    assert "https://studio.example.com/plans?a=1&b=2" in message.body
    assert 'href="https://studio.example.com/plans?a=1&amp;b=2"' in html
    assert parseaddr(message.extra_headers["Message-ID"])[1].endswith("@engarde")


def test_a_full_tenant_is_told_what_still_works(dora: Person) -> None:
    house.store(dora, 1000, now=MORNING)

    run(MORNING)

    message = message_of(dora)
    assert message.subject.endswith("is full")
    assert "Reading, shortening and deleting go on" in message.body


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)</script> & Co", "Studio\r\nBcc: evil@example.com", "{{ 7 }}{% now %}", "日本語スタジオ 😀"],
)
def test_a_hostile_name_does_no_harm(dora: Person, name: str) -> None:
    from engarde.accounts.models import Tenant

    with system_scope("a test renames"):
        Tenant.objects.filter(id=dora.tenant_id).update(name=name)
    house.store(dora, 700, now=MORNING)

    run(MORNING)

    message = message_of(dora)
    assert "\n" not in message.subject
    assert " ".join(name.split()) in message.subject
    assert "<script>" not in message.alternatives[0][0]
    assert message.recipients() == [dora.email]
    assert message.message().as_bytes()


# A digest instead of many


def test_the_first_of_a_day_goes_out_at_once_and_other_tenants_wait_for_the_digest(dora: Person) -> None:
    studios = [dora, *(another_studio(dora, f"Studio {number}") for number in (2, 3))]
    for hour, studio in enumerate(studios):
        now = MORNING + timedelta(hours=hour)
        house.store(studio, 860, now=now)
        run(now)
    assert len(got(dora.email)) == 1
    assert [row.status for studio in studios for row in deliveries(studio)] == [Status.SENT, Status.HELD, Status.HELD]

    assert run(MORNING + timedelta(hours=14, minutes=59)) == 0
    midnight = datetime(2027, 3, 2, tzinfo=UTC)
    assert run(midnight) == 1
    assert run(midnight + timedelta(hours=1)) == 0

    assert got(dora.email)[1] == "Storage of 2 of your studios is filling up"
    digest = [message for message in mail.outbox if message.to == [dora.email]][-1]
    for text in (digest.body, digest.alternatives[0][0]):  # type: ignore[attr-defined]  # a mail with an HTML part has them
        assert "Studio 2" in text
        assert "Studio 3" in text
    assert {row.status for studio in studios for row in deliveries(studio)} == {Status.SENT}


def test_two_alerts_of_one_tenant_on_a_day_are_two_mails(dora: Person) -> None:
    house.store(dora, 700, now=MORNING)
    run(MORNING)
    house.store(dora, 150, now=MORNING)
    run(MORNING)

    assert len(got(dora.email)) == 2


def test_what_is_urgent_is_never_held(dora: Person) -> None:
    other = another_studio(dora, "Studio 2")
    third = another_studio(dora, "Studio 3")
    for studio, size in ((dora, 700), (other, 950), (third, 1000)):
        house.store(studio, size, now=MORNING)
        run(MORNING)

    assert len(got(dora.email)) == 3


def test_the_next_day_begins_anew(dora: Person) -> None:
    other = another_studio(dora, "Studio 2")
    house.store(dora, 700, now=MORNING)
    run(MORNING)
    house.store(other, 700, now=MORNING + timedelta(hours=15))

    run(MORNING + timedelta(hours=15))

    assert len(got(dora.email)) == 2


def test_alerts_that_come_together_are_one_mail_and_a_digest(dora: Person) -> None:
    other = another_studio(dora, "Studio 2")
    for studio in (dora, other):
        house.store(studio, 700, now=MORNING)

    run(MORNING)

    assert len(got(dora.email)) == 1


def test_a_colleague_of_one_tenant_is_told_at_once_while_its_owner_waits(dora: Person) -> None:
    other = another_studio(dora, "Studio 2")
    admin = people.new_colleague(other, "admin")
    house.store(dora, 700, now=MORNING)
    run(MORNING)
    house.store(other, 700, now=MORNING)

    run(MORNING)

    assert (len(got(dora.email)), len(got(admin.email))) == (1, 1)


def test_a_digest_of_one_reads_like_the_alert(dora: Person) -> None:
    other = another_studio(dora, "Studio 2")
    for studio in (dora, other):
        house.store(studio, 700, now=MORNING)
        run(MORNING)

    run(MORNING + timedelta(days=1))

    assert got(dora.email)[-1] == "Studio 2 has used 70 % of its storage"


def test_a_tenant_that_somebody_left_is_not_in_the_digest(dora: Person) -> None:
    other = another_studio(dora, "Studio 2")
    for studio in (dora, other):
        house.store(studio, 700, now=MORNING)
        run(MORNING)
    with system_scope("a test removes a member"):
        Membership.objects.filter(tenant_id=other.tenant_id).delete()

    run(MORNING + timedelta(days=1))

    assert len(got(dora.email)) == 1
    assert [row.status for row in deliveries(other)] == [Status.DROPPED]


# When mail does not go out


class Broken(EmailBackend):
    """A mail server that refuses everything."""

    def send_messages(self, messages: Any) -> int:
        raise OSError("421 Service not available,\nclosing")


def test_mail_that_is_refused_is_tried_again_and_recorded(dora: Person, settings: LazySettings) -> None:
    working = settings.EMAIL_BACKEND
    settings.EMAIL_BACKEND = f"{__name__}.Broken"
    house.store(dora, 700, now=MORNING)
    assert run(MORNING) == 0
    [row] = deliveries(dora)
    assert (row.status, row.attempts, row.last_error) == (Status.PENDING, 1, "421 Service not available, closing")

    settings.EMAIL_BACKEND = working
    assert run(MORNING + timedelta(seconds=59)) == 0
    assert run(MORNING + timedelta(seconds=60)) == 1

    [row] = deliveries(dora)
    assert (row.status, row.attempts, row.last_error) == (Status.SENT, 2, "")
    assert row.finished_at == MORNING + timedelta(seconds=60)
    assert len(got(dora.email)) == 1


def test_mail_is_given_up_after_three_days_and_says_why(dora: Person, settings: LazySettings) -> None:
    settings.EMAIL_BACKEND = f"{__name__}.Broken"
    house.store(dora, 700, now=MORNING)
    hours = 0
    while (row := next(iter(deliveries(dora)), None)) is None or row.status == Status.PENDING:
        run(MORNING + timedelta(hours=hours))
        hours += 1
        assert hours < 100

    assert (row.status, row.last_error) == (Status.FAILED, "421 Service not available, closing")
    assert timedelta(days=3) <= timedelta(hours=hours) <= timedelta(days=3, hours=7)
    assert row.attempts > 10


def test_a_sender_that_dies_while_it_sends_holds_one_mail_up_for_its_lease(
    dora: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.store(dora, 700, now=MORNING)

    def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dying:
        dying.setattr(courier, "_mail", die)
        with pytest.raises(KeyboardInterrupt):
            run(MORNING)

    assert run(MORNING + timedelta(minutes=14)) == 0
    assert run(MORNING + timedelta(minutes=15)) == 1
    assert len(got(dora.email)) == 1


def test_one_address_that_is_refused_stops_nobody_else(dora: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    admins = [people.new_colleague(dora, "admin") for _ in range(3)]
    real = courier._mail

    def refuse(rows: Any, now: datetime) -> None:
        if rows[0].user.email == admins[0].email:
            raise OSError("550 No such user")
        real(rows, now)

    monkeypatch.setattr(courier, "_mail", refuse)
    house.store(dora, 700, now=MORNING)

    assert run(MORNING) == 3
    assert [len(got(person.email)) for person in (dora, *admins)] == [1, 0, 1, 1]


def test_one_alert_that_cannot_be_put_into_words_stops_nobody_else(
    dora: Person, charlie: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quotas import letters

    real = letters.compose

    def fail(*, alert: Alert, **rest: Any) -> letters.Letter:
        if alert.tenant_id == dora.tenant_id:
            raise LookupError("no words for it")
        return real(alert=alert, **rest)

    monkeypatch.setattr(letters, "compose", fail)
    house.change_usage(charlie, storage_limit_override=LIMIT, override_reason="A test.")
    for person in (dora, charlie):
        house.store(person, 700, now=MORNING)

    assert run(MORNING) == 1
    assert [len(got(person.email)) for person in (dora, charlie)] == [0, 1]
    assert [(row.status, row.last_error) for row in deliveries(dora)] == [(Status.PENDING, "no words for it")]


def test_two_senders_at_once_send_each_mail_once(dora: Person) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from django.db import connection

    for _ in range(6):
        people.new_colleague(dora, "admin")
    house.store(dora, 700, now=MORNING)

    def send(_: int) -> int:
        try:
            return run(MORNING)
        finally:
            connection.close()

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(send, range(4))) == 7
    assert len(mail.outbox) == 7


def test_the_subject_is_no_longer_than_mail_allows(dora: Person) -> None:
    from engarde.accounts.models import Tenant

    with system_scope("a test renames"):
        Tenant.objects.filter(id=dora.tenant_id).update(name="N" * 200)
    house.store(dora, 700, now=MORNING)

    run(MORNING)

    assert all(len(line) <= 998 for line in message_of(dora).message().as_bytes().splitlines())
