"""Waking carriers: never in the caller's way, one message for many commits."""

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from celery import current_app
from django.db import transaction

from engarde.common import wake
from engarde.common.wake import Waker
from tests.people import Person


class Sent:
    """What was sent, and a way to wait for it."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, str | None]] = []
        self._news = threading.Condition()

    def send(self, task_name: str, request_id: str | None) -> None:
        with self._news:
            if task_name.endswith(".task"):  # not what an earlier test's writes still send
                self.messages.append((task_name, request_id))
            self._news.notify_all()

    def until(self, enough: Callable[[Any], bool]) -> None:
        with self._news:
            assert self._news.wait_for(lambda: enough(self.messages), timeout=10), self.messages


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Sent:
    """Collects what a waker of the test's own sends."""
    collected = Sent()
    monkeypatch.setattr(wake, "_send", collected.send)
    monkeypatch.setattr(wake, "_current", None)
    return collected


def test_it_sends_what_is_wanted(sent: Sent) -> None:
    Waker().wake("a.task", "mine")

    sent.until(lambda messages: messages == [("a.task", "mine")])


def test_it_makes_few_messages_of_many_wakes(sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wake, "GATHER_SECONDS", 0.2)
    waker = Waker()

    for number in range(1000):
        waker.wake("a.task", str(number))
        waker.wake("b.task", None)
    waker.wake("last.task", None)

    sent.until(lambda messages: ("last.task", None) in messages)
    assert sent.messages[0] == ("a.task", "0")
    assert len(sent.messages) <= 10


def test_it_sends_again_for_a_wake_that_comes_later(sent: Sent) -> None:
    waker = Waker()
    waker.wake("a.task", "one")
    sent.until(lambda messages: len(messages) == 1)

    waker.wake("a.task", "two")

    sent.until(lambda messages: messages == [("a.task", "one"), ("a.task", "two")])


def test_it_goes_on_after_a_broker_that_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()

    def refuse_once(name: str, **_: Any) -> None:
        if name == "a.task":
            raise ConnectionError
        done.set()

    monkeypatch.setattr(current_app, "send_task", refuse_once)
    waker = Waker()
    waker.wake("a.task")
    waker.wake("b.task")

    assert done.wait(10)


def test_a_broker_that_hangs_costs_the_caller_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    hangs, go_on = threading.Event(), threading.Event()

    def hang(*_: Any) -> None:
        hangs.set()
        assert go_on.wait(10)

    monkeypatch.setattr(wake, "_send", hang)
    waker = Waker()
    waker.wake("a.task")
    assert hangs.wait(10)

    started = time.monotonic()
    for _ in range(1000):
        waker.wake("a.task")
    took = time.monotonic() - started
    go_on.set()

    assert took < 0.5


def test_a_write_answers_at_once_while_the_broker_hangs(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    hangs = threading.Event()

    def hang(*_: Any, **__: Any) -> None:
        hangs.set()
        go_on.wait(10)

    monkeypatch.setattr(current_app, "send_task", hang)
    monkeypatch.setattr(wake, "_current", None)
    try:
        alice.writes()
        assert hangs.wait(10)
        started = time.monotonic()
        alice.writes()
        assert time.monotonic() - started < 2
        assert not go_on.is_set()
    finally:
        go_on.set()


def test_it_wakes_after_the_commit_and_not_before(database: None, sent: Sent) -> None:
    with transaction.atomic():
        wake.after_commit("a.task")
        assert wake._current is None

    sent.until(lambda messages: [name for name, _ in messages] == ["a.task"])


def test_it_wakes_nobody_when_the_transaction_is_undone(database: None, sent: Sent) -> None:
    def undone() -> None:
        with transaction.atomic():
            wake.after_commit("a.task")
            raise KeyError

    with pytest.raises(KeyError):
        undone()
    wake.after_commit("b.task")

    sent.until(bool)
    assert [name for name, _ in sent.messages] == ["b.task"]


def test_a_committed_write_succeeds_even_if_no_thread_can_be_started(
    alice: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot() -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(wake, "_waker", cannot)

    item = alice.writes(body="kept")

    assert alice.api.get(f"/api/content/{item['id']}").json()["body"] == "kept"


def test_a_forked_process_has_a_waker_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    parents = wake._waker()
    assert wake._waker() is parents

    monkeypatch.setattr("os.getpid", lambda: parents.pid + 1)

    assert wake._waker() is not parents
    monkeypatch.setattr(wake, "_current", None)
