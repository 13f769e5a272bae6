"""Secrets of every kind, used rightly and wrongly through the real API.

Afterwards none is in a log line, answer, metric, admin page, task, row of PostgreSQL, BigQuery or ZeroDB, or key of Redis.
"""

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import pytest
from asgiref.testing import ApplicationCommunicator
from celery import current_app
from celery.signals import before_task_publish
from django.conf import LazySettings
from django.contrib import admin
from django.db import connection
from django.test import Client
from django.utils import timezone

from dr import archives
from dr.archives.bigquery import BigQueryArchive
from engarde.accounts.models import User
from engarde.asgi import application
from engarde.common import logs
from engarde.common import redis as redis_client
from engarde.common.scopes import system_scope
from generation import providers, runner
from tests import people, tiers
from tests.people import JSONClient, Person

ADMIN_ROWS = 3
COLLECTIONS = ("content_items", "content_versions", "content_media_files")


@dataclass
class Planted:
    """The secrets, some of which look like what they are and some of which do not, and all that was said meanwhile."""

    password: str = field(default_factory=lambda: f"Zwiebelfisch {uuid4().hex}")
    wrong_password: str = field(default_factory=lambda: f"Kraftbruehe {uuid4().hex}")
    openai_key: str = field(default_factory=lambda: f"sk-proj-{uuid4().hex}")
    other_key: str = field(default_factory=lambda: f"quittenmus{uuid4().hex}")
    made: list[str] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)

    @property
    def all(self) -> set[str]:
        """Every secret, and of those made of parts the part that counts."""
        known = {self.password, self.wrong_password, self.openai_key, self.other_key, *self.made}
        return known | {secret.rpartition(".")[2] for secret in self.made} | {secret[-20:] for secret in self.made}

    def in_(self, text: str) -> list[str]:
        """Return the secrets in a text, as they are or as JSON has them."""
        return [secret for secret in self.all if secret in text or json.dumps(secret)[1:-1] in text]


class Blabbermouth(BaseHTTPRequestHandler):
    """A provider that repeats all that it is told in its refusals."""

    def do_GET(self) -> None:
        self._repeat()

    def do_POST(self) -> None:
        self._repeat()

    def _repeat(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        said = f"No good key: {self.headers.get('Authorization')} {self.headers.get('X-Api-Key')}"
        body = json.dumps(
            {"error": {"message": said, "type": "invalid_request_error", "code": "invalid_value"}}
        ).encode()
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.fixture
def blabbermouth(settings: LazySettings) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Blabbermouth)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    settings.LLM_BASE_URLS = dict.fromkeys(settings.LLM_BASE_URLS, f"{url}/v1") | {"anthropic": url}
    settings.LLM_DEFAULT_MODELS = dict.fromkeys(settings.LLM_DEFAULT_MODELS, "gpt-test")
    providers.forget_models()
    yield
    server.shutdown()
    server.server_close()


@pytest.fixture
def lines() -> Iterator[list[tuple[str, str]]]:
    """All that any library logs at any level: as it is written, and as it would be without redaction."""
    written: list[tuple[str, str]] = []
    formatter = logs.formatter()

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            raw = f"{record.msg} {record.args} {record.exc_info and record.exc_info[1]}"
            written.append((formatter.format(record), raw))

    logging.getLogger("django.template").setLevel(logging.INFO)  # else a line with a traceback for every empty variable
    root, handler = logging.getLogger(), Keep()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield written
    root.setLevel(level)
    root.removeHandler(handler)


@pytest.fixture
def tasks() -> Iterator[list[str]]:
    """What is sent to Celery."""
    sent: list[str] = []

    def keep(sender: Any, headers: Any, body: Any, **_: Any) -> None:
        sent.append(f"{sender} {headers} {body}")

    before_task_publish.connect(keep, weak=False)
    yield sent
    before_task_publish.disconnect(keep)


@pytest.fixture
def planted(database: None) -> Planted:
    return Planted()


def say(planted: Planted, answer: Any) -> Any:
    """Keep what an answer says, in its head too."""
    planted.answers.append(f"{answer.status_code} {dict(answer.headers)} {answer.content.decode('utf-8', 'replace')}")
    return answer


def with_header(**headers: str) -> Any:
    client = JSONClient()
    client.credentials(**headers)
    client.raise_request_exception = False
    return client


def use_passwords(planted: Planted, alice: Person) -> Person:
    """Set, use and mistake passwords; return the owner, logged in with the planted one."""
    anybody, owner = with_header(), people.logged_in(alice)
    change = {"current_password": people.PASSWORD, "new_password": planted.password}
    assert say(planted, owner.api.post("/api/auth/password", change)).status_code == 204
    login = {"email": alice.email, "password": planted.wrong_password}
    assert say(planted, anybody.post("/api/auth/login", login)).status_code == 401
    for bad in (
        {"email": alice.email, "password": [planted.password]},
        {"email": {"a": planted.password}, "password": 1},
        {"email": planted.password, "password": planted.password},
        {"email": alice.email, "passwort": planted.password},
        {"x": 1, planted.openai_key: 1},
    ):
        assert 400 <= say(planted, anybody.post("/api/auth/login", bad)).status_code < 500
    raw = f'{{"email": "{alice.email}", "password": "{planted.password}'
    say(planted, anybody.generic("POST", "/api/auth/login", raw, content_type="application/json"))
    say(planted, anybody.generic("POST", "/api/auth/login", f"password={planted.password}", content_type="text/plain"))
    say(planted, with_header(HTTP_AUTHORIZATION=f"Basic {planted.password}").get("/api/content"))
    say(planted, anybody.post("/api/auth/password-reset/confirm", {"token": "none", "new_password": planted.password}))
    mine = Person(
        alice.email, alice.user_id, alice.tenant_id, alice.brand_id, people.log_in(alice.email, planted.password)
    )
    for role in ("editor", "king"):
        member = {"email": f"{uuid4().hex}@example.com", "role": role, "password": planted.password}
        say(planted, mine.api.post("/api/members", member))
    return mine


def use_tokens(planted: Planted, owner: Person) -> None:
    """Use and mistake access and refresh tokens."""
    pair = JSONClient().post("/api/auth/login", {"email": owner.email, "password": planted.password}).json()
    token, refresh = pair["access_token"], pair["refresh_token"]
    planted.made += [token, refresh]
    for client in (
        with_header(HTTP_AUTHORIZATION=f"Bearer {token}"),
        with_header(HTTP_AUTHORIZATION=f"Bearer {token}x"),
        with_header(HTTP_AUTHORIZATION=f"Token {token}"),
        with_header(HTTP_X_API_KEY=token),
        with_header(HTTP_AUTHORIZATION=f"Bearer {refresh}"),
        with_header(HTTP_AUTHORIZATION=f"Bearer {token}", HTTP_X_TENANT_ID=token),
        with_header(HTTP_COOKIE=f"sessionid={refresh}"),
    ):
        say(planted, client.get("/api/auth/me"))
        say(planted, client.get(f"/api/content?token={token}"))
        say(planted, client.get(f"/api/content?page={token}"))
        say(planted, client.get(f"/api/content/{token}"))
    renewed = JSONClient().post("/api/auth/refresh", {"refresh_token": refresh}).json()
    planted.made += [renewed["access_token"], renewed["refresh_token"]]
    assert say(planted, JSONClient().post("/api/auth/refresh", {"refresh_token": refresh})).status_code == 401
    say(planted, JSONClient().post("/api/auth/logout", {"refresh_token": renewed["refresh_token"]}))


def use_api_keys(planted: Planted, owner: Person) -> None:
    """Make, use, rotate, revoke and mistake API keys."""
    made = owner.api.post("/api/api-keys", {"name": "planted", "scopes": ["content:read", "content:write"]}).json()
    rotated = owner.api.post(f"/api/api-keys/{made['id']}/rotate", {"overlap_hours": 1}).json()
    planted.made += [made["key"], rotated["key"]]
    for key in (made["key"], rotated["key"], f"{made['key'][:-1]}0", f"{made['key']} "):
        for client in (with_header(HTTP_X_API_KEY=key), with_header(HTTP_AUTHORIZATION=f"Bearer {key}")):
            say(planted, client.post("/api/content", {"title": "A title", "type": "post", "body": "A body"}))
            say(planted, client.get("/api/members"))
            say(planted, client.get(f"/api/content/{key}"))
            say(planted, client.get(f"/api/content?key={key}"))
    say(planted, owner.api.get("/api/api-keys"))
    say(planted, owner.api.delete(f"/api/api-keys/{made['id']}"))
    say(planted, with_header(HTTP_X_API_KEY=rotated["key"]).get("/api/content"))


def use_provider_keys(planted: Planted, owner: Person) -> str:
    """Store, use and mistake provider keys, with a provider that repeats them; return the id of a job that failed."""
    for provider, key in (
        ("openai", planted.openai_key),
        ("qwen", planted.other_key),
        ("anthropic", planted.other_key),
    ):
        assert say(planted, owner.api.post("/api/llm-keys", {"provider": provider, "api_key": key})).status_code == 200
        say(planted, owner.api.post(f"/api/llm-keys/{provider}/verify"))
        say(
            planted,
            owner.api.post("/api/content/generate", {"prompt": "Hello", "content_type": "post", "provider": provider}),
        )
    for bad in (
        {"provider": "nobody", "api_key": planted.other_key},
        {"provider": "openai", "api_key": [planted.other_key]},
        {"provider": "openai", "api_key": planted.other_key * 40},
        {"provider": "openai", "api_key": f"{planted.other_key}\n"},
        {"provider": "openai", "apikey": planted.other_key},
        {"provider": "openai", "api_key": "x", planted.openai_key: 1},
    ):
        say(planted, owner.api.post("/api/llm-keys", bad))
    say(planted, owner.api.get("/api/llm-keys"))
    params = {"prompt_template": "Write about {topic}.", "topics": ["apples"]}
    batch = {
        "content_type": "post",
        "target_count": 2,
        "provider": "qwen",
        "model": "gpt-test",
        "generation_params": params,
    }
    started = say(planted, owner.api.post("/api/content/generate-batch", batch))
    assert started.status_code == 202, started.content
    job_id: str = started.json()["job_id"]
    runner.run(tenant_id=owner.tenant_id, job_id=job_id, now=timezone.now)  # type: ignore[arg-type]  # as Celery has it
    for path in ("", "/items"):
        say(planted, owner.api.get(f"/api/content/generation-jobs/{job_id}{path}"))
    return job_id


def watch(planted: Planted, job_id: str) -> None:
    """Watch a job with good and bad credentials."""

    async def look(*offered: str, **headers: str) -> None:
        sent = [(name.encode(), value.encode()) for name, value in headers.items()]
        scope = {"type": "websocket", "path": f"/ws/generation-jobs/{job_id}", "query_string": b"", "headers": sent}
        socket = ApplicationCommunicator(application, {**scope, "subprotocols": list(offered)})
        await socket.send_input({"type": "websocket.connect"})
        said: dict[str, Any] = {"type": ""}
        while said["type"] != "websocket.close":
            said = await socket.receive_output(timeout=10)
            planted.answers.append(str(said))
        await socket.send_input({"type": "websocket.disconnect", "code": 1000})

    async def look_often() -> None:
        for secret in planted.made:
            await look("engarde.v1", f"bearer.{secret}")
            await look(authorization=f"Bearer {secret}")

    asyncio.run(look_often())


def test_no_secret_comes_out_anywhere(
    planted: Planted,
    lines: list[tuple[str, str]],
    tasks: list[str],
    blabbermouth: None,
    upload: Callable[[], int],
    back_up: Callable[[], int],
) -> None:
    owner = use_passwords(planted, people.new_owner("planted", tier="professional"))
    use_tokens(planted, owner)
    use_api_keys(planted, owner)
    job_id = use_provider_keys(planted, owner)
    watch(planted, job_id)
    use_admin(planted, owner)
    upload()
    back_up()

    found = {
        "log lines": [planted.in_(line) and line for line, _ in lines],
        "answers": [planted.in_(answer) and answer for answer in planted.answers],
        "tasks": [planted.in_(task) and task for task in tasks],
        "metrics": [planted.in_(line) and line for line in metrics()],
        "admin": [planted.in_(html) and name for name, html in admin_pages(owner)],
        "PostgreSQL": [planted.in_(text) and text for text in postgres(planted)],
        "BigQuery": [planted.in_(text) and text for text in bigquery()],
        "ZeroDB": [planted.in_(text) and text for text in zerodb(owner)],
        "Redis": [planted.in_(text) and text for text in redis()],
    }

    assert {place: [one for one in told if one] for place, told in found.items()} == {place: [] for place in found}
    assert {place for place, told in found.items() if not told} <= {"PostgreSQL"}, "every place was looked into"
    assert any(logs.REDACTED in line for line, _ in lines), "there was something to redact"
    assert current_app.conf.task_ignore_result


def use_admin(planted: Planted, owner: Person) -> None:
    """Log in to the admin with right and wrong passwords."""
    for password in (planted.password, planted.wrong_password):
        say(planted, Client().post("/admin/login/", {"username": owner.email, "password": password}))


def metrics() -> list[str]:
    return JSONClient().get("/metrics").content.decode().splitlines()


def admin_pages(owner: Person) -> Iterator[tuple[str, str]]:
    """Yield the first page, and every list with its newest rows."""
    browser = Client()
    browser.force_login(User.objects.create_superuser(f"staff-{uuid4().hex[:12]}@example.com", people.PASSWORD))
    yield "/admin/", browser.get("/admin/").content.decode()
    for model in admin.site._registry:
        address = f"/admin/{model._meta.app_label}/{model._meta.model_name}/"
        yield address, browser.get(address, follow=True).content.decode()
        with system_scope("a test looks"):
            rows = model._default_manager.order_by("-pk")
            if "tenant_id" in {name.attname for name in model._meta.concrete_fields}:
                rows = rows.filter(tenant_id=owner.tenant_id)
            keys = list(rows.values_list("pk", flat=True)[:ADMIN_ROWS])
        for key in keys:
            yield f"{address}{key}", browser.get(f"{address}{key}/change/").content.decode()


def postgres(planted: Planted) -> list[str]:
    """Return every row of every table that has a secret in it."""
    patterns = [f"%{secret}%" for secret in planted.all]
    with system_scope("a test looks"), connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'public'::regnamespace"
        )
        found = []
        for (table,) in cursor.fetchall():
            cursor.execute(f'SELECT one::text FROM "{table}" AS one WHERE one::text LIKE ANY(%s)', [patterns])
            found += [f"{table}: {text}" for (text,) in cursor.fetchall()]
    return found


def bigquery() -> list[str]:
    archive = archives.current()
    assert isinstance(archive, BigQueryArchive)
    tables = ("content_storage_dr", "content_media_dr", "content_sync_log")
    return [
        str(row.values()) for table in tables for row in tiers.bigquery(f"SELECT * FROM `{archive.dataset}.{table}`")
    ]


def zerodb(owner: Person) -> list[str]:
    wanted = {"tenant_id": str(owner.tenant_id)}
    return [
        json.dumps(row)
        for name in COLLECTIONS
        for row in tiers.zerodb("POST", "/query", collection=name, filter=wanted, limit=1000)["data"]
    ]


def redis() -> Iterator[str]:
    """Yield all that is in Redis: what waits for workers, copies of documents, throttles."""
    client: Any = redis_client.client()
    read: dict[bytes, Callable[[bytes], Any]] = {
        b"string": client.get,
        b"list": lambda key: client.lrange(key, 0, -1),
        b"hash": client.hgetall,
        b"set": client.smembers,
        b"zset": lambda key: client.zrange(key, 0, -1),
    }
    for key in client.scan_iter():
        kind = client.type(key)
        yield f"{key!r} {read.get(kind, lambda _: '')(key)}"


def test_a_fault_of_our_own_tells_no_secret_that_looks_like_one(
    planted: Planted, lines: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = people.logged_in(people.new_owner("faulty"))
    token = owner.credentials["HTTP_AUTHORIZATION"].removeprefix("Bearer ")
    planted.made.append(token)

    def fail(**_: Any) -> None:
        raise ConnectionError(
            f"postgres://user:{planted.other_key}@db refused, Bearer {token}, password={planted.wrong_password.split()[1]}, "
            f"key {planted.openai_key}"
        )

    monkeypatch.setattr("content.lists.list_items", fail)
    client = owner.api
    client.raise_request_exception = False
    answer = say(planted, client.get("/api/content"))

    assert answer.status_code == 500
    assert [planted.in_(line) and line for line, _ in lines if planted.in_(line)] == []
    assert not any(planted.wrong_password.split()[1] in line for line, _ in lines)
    assert planted.in_(planted.answers[0]) == []
    assert any(token in raw for _, raw in lines)
