"""The outbox: mail is decided in a transaction, sent once outside it, and tried again while it fails."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pytest
from django.core import mail
from django.core.mail.backends.base import BaseEmailBackend
from django.db import connection

from engarde.accounts import mailer, tasks
from engarde.accounts.metrics import MAILS
from engarde.accounts.models import Mail
from tests.accounts.mailbox import deliver
from tests.accounts.races import race
from tests.people import JSONClient, Person


class BrokenBackend(BaseEmailBackend):
    """A mail server that refuses everything, and counts."""

    tries: ClassVar[list[str]] = []

    def send_messages(self, messages: Any) -> int:
        """Refuse."""
        self.tries.extend(address for message in messages for address in message.to)
        raise OSError("the mail server is away")


@pytest.fixture(autouse=True)
def empty_outbox(database: None) -> Iterator[None]:
    """Each test begins and ends with nothing to send."""
    Mail.objects.all().delete()
    BrokenBackend.tries.clear()
    yield
    Mail.objects.all().delete()


@pytest.fixture
def broken(settings: Any) -> Any:
    """A mail server that is away."""
    settings.EMAIL_BACKEND = f"{__name__}.BrokenBackend"
    return settings


def ask(person: Person) -> None:
    assert JSONClient().post("/api/auth/password-reset", {"email": person.email}).status_code == 204


def at(**later: int) -> datetime:
    return datetime.now(UTC) + timedelta(**later)


def test_it_is_sent_once(charlie: Person) -> None:
    ask(charlie)

    assert mailer.send_due(now=at()) == 1
    assert mailer.send_due(now=at(days=1)) == 0

    assert [message.to for message in mail.outbox] == [[charlie.email]]
    assert not Mail.objects.exists()


def test_the_request_sends_nothing_itself(charlie: Person, broken: Any) -> None:
    ask(charlie)

    assert BrokenBackend.tries == []
    assert Mail.objects.get().attempts == 0


def test_attempts_are_counted_by_what_became_of_them(charlie: Person, broken: Any) -> None:
    def counted() -> list[float]:
        return [MAILS.labels(outcome)._value.get() for outcome in ("sent", "failed", "given_up")]

    before = counted()
    ask(charlie)
    mailer.send_due(now=at())
    failed = counted()
    mailer.send_due(now=at(days=4))
    given_up = counted()
    broken.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"
    ask(charlie)
    mailer.send_due(now=at())

    steps = zip([before, failed, given_up], [failed, given_up, counted()], strict=True)
    assert [[new - old for old, new in zip(*step, strict=True)] for step in steps] == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]


def test_what_fails_is_tried_again_ever_more_rarely(charlie: Person, broken: Any) -> None:
    ask(charlie)
    waits = []
    now = at()
    for _ in range(12):
        assert mailer.send_due(now=now) == 0
        due = Mail.objects.get().next_attempt_at
        waits.append(due - now)
        assert mailer.send_due(now=due - timedelta(seconds=1)) == 0
        now = due

    minutes = [round(wait.total_seconds() / 60) for wait in waits]
    assert minutes == [1, 2, 4, 8, 16, 32, 64, 128, 256, 360, 360, 360]
    assert len(BrokenBackend.tries) == 12, "no try before its time"


def test_it_goes_out_when_the_mail_server_is_back(charlie: Person, broken: Any) -> None:
    ask(charlie)
    mailer.send_due(now=at())

    broken.EMAIL_BACKEND = "django.core.mail.backends.locmem.EmailBackend"

    assert mailer.send_due(now=at(minutes=2)) == 1
    assert len(deliver(charlie.email)) == 1


def test_after_three_days_it_is_given_up(charlie: Person, broken: Any) -> None:
    ask(charlie)

    mailer.send_due(now=at(days=2, hours=23))
    assert Mail.objects.exists()
    mailer.send_due(now=at(days=4))

    assert not Mail.objects.exists()


def test_one_mail_that_fails_does_not_hold_up_the_others(
    alice: Person, charlie: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(alice)
    ask(charlie)
    make = mailer._message

    def fail_for_alice(row: Mail) -> Any:
        if row.user_id == alice.user_id:
            raise ValueError("no such template")
        return make(row)

    monkeypatch.setattr(mailer, "_message", fail_for_alice)

    assert mailer.send_due(now=at()) == 1

    assert [message.to for message in mail.outbox] == [[charlie.email]]


def test_two_senders_at_once_send_it_once(charlie: Person) -> None:
    ask(charlie)
    now = at()

    sent = race([lambda: mailer.send_due(now=now)] * 3, at=Mail.objects.filter(user_id=charlie.user_id))

    assert sent == [0, 0, 0], "a row that somebody holds is left alone"
    assert mailer.send_due(now=now) == 1


def test_a_mail_that_is_being_sent_is_nobody_elses(charlie: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(charlie)
    now, others = at(), []
    make = mailer._message

    def look(row: Mail) -> Any:
        others.append(mailer.send_due(now=now + timedelta(minutes=10)))
        assert not connection.in_atomic_block, "no transaction is open while the mail server is spoken to"
        return make(row)

    monkeypatch.setattr(mailer, "_message", look)

    assert mailer.send_due(now=now) == 1
    assert others == [0]


def test_a_sender_who_died_is_followed_by_another(charlie: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    ask(charlie)

    def die(row: Mail) -> Any:
        raise SystemExit

    with monkeypatch.context() as patched:
        patched.setattr(mailer, "_message", die)
        with pytest.raises(SystemExit):
            mailer.send_due(now=at())

    assert mailer.send_due(now=at(minutes=14)) == 0
    assert mailer.send_due(now=at(minutes=16)) == 1


def test_the_task_sends_what_is_due(charlie: Person) -> None:
    ask(charlie)

    tasks.send_mail()

    assert [message.to for message in mail.outbox] == [[charlie.email]]


def test_nothing_is_sent_for_a_transaction_that_failed(alice: Person) -> None:
    before = Mail.objects.count()

    answer = alice.api.post("/api/members", {"email": alice.email, "role": "viewer"})

    assert answer.status_code == 409
    assert Mail.objects.count() == before
