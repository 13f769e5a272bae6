"""Request ids: kept or made, echoed, and carried into logs and tasks."""

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
import structlog
from asgiref.testing import ApplicationCommunicator
from celery import current_app
from celery.app.trace import build_tracer
from celery.signals import before_task_publish
from rest_framework.test import APIClient

from engarde.asgi import application
from engarde.common import request_ids, wake
from engarde.common.request_ids import accept_or_make
from tests.people import Person


@pytest.mark.parametrize("given", ["a", "A-Z_0.9", "x" * 128, "01a204dc-5242-725b-8f16-7437be78a214"])
def test_it_keeps_a_good_id(given: str) -> None:
    assert accept_or_make(given) == given
    assert APIClient().get("/health/live", HTTP_X_REQUEST_ID=given)["X-Request-ID"] == given


@pytest.mark.parametrize("given", [None, "", " ", "x" * 129, "a b", "a\n", "ä", "a/b", "a;b", "<b>", "٣"])
def test_it_replaces_a_bad_one_by_a_new_one(given: str | None) -> None:
    made = accept_or_make(given)

    assert UUID(made).version == 7
    assert made != accept_or_make(given)


def test_it_puts_the_id_into_the_answer_and_the_problem(alice: Person) -> None:
    answer = alice.api.get("/api/content?page=0", HTTP_X_REQUEST_ID="mine")

    assert answer.status_code == 400
    assert answer.json()["request_id"] == answer["X-Request-ID"] == "mine"


def test_it_never_mixes_up_two_requests(alice: Person) -> None:
    first = alice.api.get("/api/content?page=0", HTTP_X_REQUEST_ID="first")
    second = alice.api.get("/api/content?page=0")

    assert first.json()["request_id"] == "first"
    assert second.json()["request_id"] == second["X-Request-ID"] != "first"


def test_it_is_in_every_log_line_of_the_request(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def look(**_: Any) -> None:
        seen.append(request_ids.current())
        raise KeyError

    monkeypatch.setattr("content.lists.list_items", look)
    client = alice.api
    client.raise_request_exception = False

    client.get("/api/content", HTTP_X_REQUEST_ID="mine")

    assert seen == ["mine"]


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The headers of what is published, which goes nowhere."""
    headers: list[dict[str, Any]] = []

    def keep(_producer: Any, name: str, message: Any, **options: Any) -> None:
        merged = {**message.headers, **(options.get("headers") or {})}
        before_task_publish.send(sender=name, headers=merged, body=message.body)
        if name == "tests.look":  # not what an earlier test's writes still send
            headers.append(merged)

    monkeypatch.setattr(current_app.amqp, "send_task_message", keep)
    return headers


def test_it_goes_with_a_task_that_the_request_starts(sent: list[dict[str, Any]]) -> None:
    with structlog.contextvars.bound_contextvars(request_id="mine"):
        current_app.send_task("tests.look")

    assert sent[0]["request_id"] == "mine"


def test_it_goes_with_a_wake_up_though_another_thread_sends_it(sent: list[dict[str, Any]]) -> None:
    wake._send("tests.look", "the request's")

    assert sent[0]["request_id"] == "the request's"


def test_a_task_runs_under_the_id_it_was_sent_with() -> None:
    seen: list[dict[str, Any]] = []

    @current_app.task(name="tests.look")
    def look() -> None:
        seen.append(structlog.contextvars.get_contextvars())

    try:
        run = build_tracer("tests.look", look, app=current_app)
        run("one", [], {}, {"id": "one", "request_id": "mine"})
        run("two", [], {}, {"id": "two", "request_id": None})
    finally:
        current_app.tasks.pop("tests.look")

    assert [one["request_id"] for one in seen] == ["mine", "two"]
    assert [one["task"] for one in seen] == ["tests.look"] * 2
    assert "request_id" not in structlog.contextvars.get_contextvars()


def test_it_goes_into_the_threads_of_a_task() -> None:
    with structlog.contextvars.bound_contextvars(request_id="mine", job_id="a job"), request_ids.threads(2) as pool:
        seen = list(pool.map(lambda _: structlog.contextvars.get_contextvars(), range(4)))

    assert [(one["request_id"], one["job_id"]) for one in seen] == [("mine", "a job")] * 4


@pytest.mark.parametrize(("given", "kept"), [("mine", True), ("not mine", False)])
def test_a_socket_has_one_too(database: None, given: str, kept: bool, caplog: pytest.LogCaptureFixture) -> None:
    job_id = uuid4()
    scope = {"type": "websocket", "path": f"/ws/generation-jobs/{job_id}", "query_string": b"", "subprotocols": []}

    async def watch() -> dict[str, Any]:
        socket = ApplicationCommunicator(application, {**scope, "headers": [(b"x-request-id", given.encode())]})
        await socket.send_input({"type": "websocket.connect"})
        accepted: dict[str, Any] = await socket.receive_output(10)
        assert (await socket.receive_output(10))["type"] == "websocket.close"
        await socket.send_input({"type": "websocket.disconnect", "code": 4401})
        await socket.wait(10)
        return accepted

    with caplog.at_level("INFO"):
        accepted = asyncio.run(watch())

    echoed = dict(accepted["headers"])[b"x-request-id"].decode()
    [line] = [
        record.msg for record in caplog.records if isinstance(record.msg, dict) and record.msg["event"] == "socket"
    ]
    assert (echoed == given) is kept
    assert (line["request_id"], line["job_id"], line["code"]) == (echoed, str(job_id), 4401)
