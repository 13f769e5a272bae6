"""Alert targets: Slack, Teams and webhooks that a tenant is told by, whatever they answer and wherever they lead."""

import html
import socket
import ssl
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

import pytest
from cryptography.fernet import Fernet
from django.core import mail
from django.db import connection
from django.utils import timezone

from engarde.common import addresses, encryption
from engarde.common.scopes import system_scope
from quotas import courier
from quotas.models import Alert, AlertDelivery, AlertTarget, QuotaUsage
from tests import people
from tests.accounts.races import race
from tests.content.answers import bad_fields, ok, refused
from tests.people import JSONClient, Person
from tests.quotas import house
from tests.receivers import Authority, Receiver, receiving

TARGETS = "/api/content/quota/alert-targets"
PUBLIC = "93.184.215.14"
LOOPBACK = "127.0.0.1"
SECRET = "s3cr3t"  # all that must not be seen of a URL has it in it, in capitals or not
SLACK_HOST, TEAMS_HOST, HOST = "hooks.slack.com", "prod-1.westeurope.logic.azure.com", "hook.example"
SLACK = f"https://{SLACK_HOST}/services/T0S3CR3T/B0S3CR3T/xs3cr3tEnd4"
TEAMS = (
    f"https://{TEAMS_HOST}/workflows/flow-s3cr3t/triggers/manual/paths/invoke"
    "?api-version=2016-06-01&sp=%2Ftriggers%2Fmanual%2Frun&sv=1.0&sig=sig_s3cr3t-End4"
)
HOOK = f"https://{HOST}/in/s3cr3t?key=s3cr3tEnd4"
KINDS = {"slack": SLACK, "teams": TEAMS, "webhook": HOOK}
HOSTS = {"slack": SLACK_HOST, "teams": TEAMS_HOST, "webhook": HOST}
SHOWN = {"id", "kind", "name", "url_hint", "created_at", "last_status", "last_error", "last_sent_at"}

SENDERS = courier.TARGET_SENDERS

Listen = Callable[..., Receiver]
Names = dict[str, list[list[Any]]]


@pytest.fixture(autouse=True)
def nothing_left(database: None) -> Iterator[None]:
    """Each test begins and ends with nothing to send."""

    def forget() -> None:
        with system_scope("a test tidies up"):
            Alert.objects.all().delete()
            AlertTarget.objects.all().delete()

    forget()
    yield
    forget()


@pytest.fixture(autouse=True)
def few_senders(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sender opens a connection to the database, which takes most of a test's time."""
    monkeypatch.setattr(courier, "TARGET_SENDERS", 2)


@pytest.fixture
def many_senders(few_senders: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as there really are."""
    monkeypatch.setattr(courier, "TARGET_SENDERS", SENDERS)


@pytest.fixture
def dora(database: None) -> Person:
    """Owner of a tenant that may store 1,000 bytes."""
    return people.new_owner("dora", storage_limit=1000)


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    """What names lead to: answer after answer, the last for ever; an address may come with a port to go to instead.

    Names that are not in it lead nowhere, and so does one whose answer is empty.
    """
    known: Names = {}
    real = socket.getaddrinfo

    def stub(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else str(host)
        if name in known:
            answers = known[name]
            found = answers.pop(0) if len(answers) > 1 else answers[0]
        elif name.endswith((".example", ".com", ".net")):
            found = []
        else:
            return real(host, port, *args, **kwargs)
        if not found:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        pairs = [(one, port) if isinstance(one, str) else one for one in found]
        return [
            (socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, to))
            for address, to in pairs
        ]

    monkeypatch.setattr(socket, "getaddrinfo", stub)
    return known


@pytest.fixture
def public(names: Names) -> Names:
    """Names that lead to public addresses, for as long as nothing is sent."""
    names.update({host: [[PUBLIC]] for host in HOSTS.values()})
    return names


@pytest.fixture
def authority(tmp_path: Any, settings: Any) -> Authority:
    """A certificate authority that the sender trusts."""
    settings.WEBHOOK_ALLOW_PRIVATE = True
    made = Authority(tmp_path)
    settings.WEBHOOK_CA_FILE = made.file
    return made


@pytest.fixture
def listen(names: Names, authority: Authority) -> Iterator[Listen]:
    """Start an HTTPS receiver that a name leads to, whatever the port; it answers as those of its kind do."""
    with ExitStack() as stack:

        def start(name: str = HOST, *, certified: str = "", **how: Any) -> Receiver:
            tls = authority.server(certified or name)
            receiver = stack.enter_context(receiving(tls=tls, **{"body": b"ok" if "slack" in name else b"", **how}))
            names[name] = [[(LOOPBACK, receiver.port)]]
            return receiver

        yield start


@contextmanager
def raw_server(answer: Callable[[socket.socket], None], tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve every connection with a function of the test's, and tell the port."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                taken, _ = server.accept()
                threading.Thread(target=handle, args=[taken], daemon=True).start()

    def handle(taken: socket.socket) -> None:
        with suppress(OSError), taken:  # the sender hangs up
            if tls is None:
                answer(taken)
                return
            with tls.wrap_socket(taken, server_side=True) as secured:
                request = b""
                while not request.endswith(b"}") and (more := secured.recv(65536)):
                    request += more  # to its end: else closing would reset the connection and take the answer with it
                answer(secured)

    with socket.create_server((LOOPBACK, 0)) as server:
        threading.Thread(target=serve, daemon=True).start()
        yield int(server.getsockname()[1])


def add(person: Person, kind: str = "webhook", url: str = "", **fields: Any) -> dict[str, Any]:
    return ok(person.api.post(TARGETS, {"kind": kind, "url": url or KINDS[kind], **fields}), 201)


def post(person: Person, url: str, kind: str = "webhook") -> Any:
    return person.api.post(TARGETS, {"kind": kind, "url": url})


def shown(person: Person, target: dict[str, Any]) -> dict[str, Any]:
    return ok(person.api.get(f"{TARGETS}/{target['id']}"))


def outcome(person: Person, target: dict[str, Any]) -> tuple[str | None, str | None]:
    found = shown(person, target)
    return found["last_status"], found["last_error"]


def cross(person: Person, size: int = 720) -> None:
    """Store so much that a threshold is crossed."""
    ok(person.api.post("/api/content", {"title": "A title", "type": "post", "body": "x" * size}), 201)


def ask_for_test(person: Person, target: dict[str, Any]) -> dict[str, Any]:
    return ok(person.api.post(f"{TARGETS}/{target['id']}/test"), 202)


def run(later: timedelta = timedelta(0)) -> int:
    return run_at(timezone.now() + later)


def run_at(now: datetime) -> int:
    return courier.run(now=lambda: now)


def rows(person: Person, target: dict[str, Any]) -> list[AlertDelivery]:
    with house.inside(person) as tenant_id:
        found = AlertDelivery.objects.filter(tenant_id=tenant_id, target_id=UUID(target["id"]))
        return list(found.order_by("id"))


def is_secret(text: object) -> bool:
    return SECRET in str(text).lower()


def mails_to(person: Person) -> int:
    return sum(message.to == [person.email] for message in mail.outbox)


# The API


@pytest.mark.parametrize("kind", KINDS)
def test_a_target_is_made_and_its_url_is_not_shown_again(dora: Person, public: Names, kind: str) -> None:
    answer = dora.api.post(TARGETS, {"kind": kind, "url": KINDS[kind], "name": "The office"})

    made = ok(answer, 201)
    assert answer["Location"] == f"{TARGETS}/{made['id']}"
    assert made.keys() == SHOWN
    assert (made["kind"], made["name"], made["url_hint"]) == (kind, "The office", f"{HOSTS[kind]}…End4")
    assert (made["last_status"], made["last_error"], made["last_sent_at"]) == (None, None, None)
    assert ok(dora.api.get(answer["Location"])) == made
    assert ok(dora.api.get(TARGETS))["data"] == [made]
    assert not is_secret(answer.content)


@pytest.mark.parametrize("kind", KINDS)
def test_the_url_is_in_no_column_but_can_be_read_again(dora: Person, public: Names, kind: str) -> None:
    made = add(dora, kind)

    with system_scope("a test looks"), connection.cursor() as cursor:
        cursor.execute("SELECT to_jsonb(t)::text FROM content_quota_alert_targets t WHERE id = %s", [made["id"]])
        [(everything,)] = cursor.fetchall()
        token = AlertTarget.objects.get(id=made["id"]).url
    assert HOSTS[kind] in everything
    assert not is_secret(everything)
    assert encryption.decrypt(token) == KINDS[kind]


def test_a_name_may_be_left_out(dora: Person, public: Names) -> None:
    assert add(dora)["name"] == ""


def test_targets_are_listed_in_pages_oldest_first(dora: Person, public: Names) -> None:
    for number in range(3):
        add(dora, name=f"Number {number}")

    first = ok(dora.api.get(TARGETS, {"pageSize": 2}))
    second = ok(dora.api.get(TARGETS, {"pageSize": 2, "page": 2}))

    assert [row["name"] for row in first["data"]] == ["Number 0", "Number 1"]
    assert [row["name"] for row in second["data"]] == ["Number 2"]
    expected = {"pageSize": 2, "total": 3, "totalPages": 2, "nextCursor": None}
    assert first["pagination"] == {"page": 1, "hasNext": True, "hasPrevious": False, **expected}
    assert second["pagination"] == {"page": 2, "hasNext": False, "hasPrevious": True, **expected}
    bad = bad_fields(dora.api.get(TARGETS, {"pageSize": "101", "page": "0", "kind": "slack"}))
    assert bad == {"pageSize", "page", "kind"}


def test_a_target_that_is_removed_is_gone(dora: Person, public: Names) -> None:
    made = add(dora)
    path = f"{TARGETS}/{made['id']}"

    answer = dora.api.delete(path)

    assert (answer.status_code, answer.content) == (204, b"")
    for again in (dora.api.get(path), dora.api.delete(path), dora.api.post(f"{path}/test")):
        refused(again, 404, "not_found")
    assert ok(dora.api.get(TARGETS))["data"] == []


def test_one_that_is_removed_before_the_alert_goes_out_gets_nothing(dora: Person, listen: Listen) -> None:
    receiver, made = listen(), add(dora)
    cross(dora)
    courier.fan_out(now=timezone.now())
    dora.api.delete(f"{TARGETS}/{made['id']}")

    assert run() == 1
    assert (receiver.got, mails_to(dora)) == ([], 1)


def test_another_tenants_target_is_not_there(dora: Person, charlie: Person, public: Names) -> None:
    path = f"{TARGETS}/{add(dora)['id']}"

    for answer in (charlie.api.get(path), charlie.api.delete(path), charlie.api.post(f"{path}/test")):
        refused(answer, 404, "not_found")
    assert ok(charlie.api.get(TARGETS))["data"] == []
    ok(dora.api.get(path))


def calls_of(who: Any, path: str) -> list[Any]:
    """Make every call as somebody, and return the answers."""
    body = {"kind": "webhook", "url": HOOK}
    lists = [who.get(TARGETS), who.post(TARGETS, body)]
    return [*lists, who.get(path), who.post(f"{path}/test"), who.delete(path)]


@pytest.mark.parametrize("who", ["editor", "viewer", "key"])
def test_who_is_no_admin_may_do_none_of_it(dora: Person, public: Names, who: str) -> None:
    path = f"{TARGETS}/{add(dora)['id']}"
    if who == "key":
        scopes = ["content:read", "content:write", "quota:read"]
        key = ok(dora.api.post("/api/api-keys", {"name": "agent", "scopes": scopes}), 201)["key"]
        headers = {"HTTP_X_API_KEY": key}
    else:
        headers = dict(people.new_colleague(dora, who).credentials)
    client = JSONClient()
    client.credentials(**headers)

    for answer in calls_of(client, path):
        assert (answer.status_code, answer["X-Quota-Used"]) == (403, "0"), answer.content
    assert len(ok(dora.api.get(TARGETS))["data"]) == 1


def test_admins_may_and_strangers_may_not(dora: Person, public: Names) -> None:
    path = f"{TARGETS}/{add(dora)['id']}"

    assert [answer.status_code for answer in calls_of(JSONClient(), path)] == [401] * 5
    assert [answer.status_code for answer in calls_of(people.new_colleague(dora, "admin").api, path)] == [
        *(200, 201, 200, 202, 204)
    ]


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"kind", "url"}),
        ({"kind": "slack"}, {"url"}),
        ({"kind": "webhook", "url": None}, {"url"}),
        ({"kind": "webhook", "url": ""}, {"url"}),
        ({"kind": "webhook", "url": 5}, {"url"}),
        ({"kind": "webhook", "url": [HOOK]}, {"url"}),
        ({"kind": "webhook", "url": "https://hook.example/" + "x" * 1980}, {"url"}),
        ({"kind": "pager", "url": HOOK}, {"kind"}),
        ({"kind": 1, "url": HOOK}, {"kind"}),
        ({"kind": "webhook", "url": HOOK, "name": "n" * 101}, {"name"}),
        ({"kind": "webhook", "url": HOOK, "template": "/etc/passwd", "url_hint": "x"}, {"template", "url_hint"}),
    ],
)
def test_a_body_that_is_not_as_documented_is_refused(
    dora: Person, public: Names, body: dict[str, Any], fields: set[str]
) -> None:
    answer = dora.api.post(TARGETS, body)

    assert bad_fields(answer) == fields
    assert not is_secret(answer.content)
    assert ok(dora.api.get(TARGETS))["data"] == []


def test_a_url_as_long_as_is_allowed_is_taken(dora: Person, public: Names) -> None:
    add(dora, url="https://hook.example/" + "x" * 1979)


TEAMS_START = f"https://{TEAMS_HOST}/workflows/flow/triggers/manual/paths/invoke"
REFUSED = {
    "webhook": [
        *("http://hook.example/", "ftp://hook.example/", "//hook.example/", "hook.example", "https://", "file:///etc"),
        *("json://hook.example/", "jsons://hook.example/", "slack://T/B/c", "https:///path", "https://hook.example:22/"),
        *("https://user:s3cr3t@hook.example/", "https://user@hook.example/", "https://hook.example/#s3cr3t"),
        *("https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f.1/", "https://localhost/"),
        *("https://[::1]/", "https://[::ffff:127.0.0.1]/", "https://[fe80::1%25lo]/", "https://0/"),
        *("https://10.0.0.1/", "https://192.168.1.1/", "https://172.16.0.1/", "https://100.64.0.1/"),
        *("https://169.254.169.254/latest/meta-data", "https://[fd00:ec2::254]/", "https://[fe80::1]/"),
        *("https://inside.example/", "https://both.example/", "https://nowhere.example/", "https://xn--a-.example/"),
        *("https://hook.example\\@127.0.0.1/", "https://hook.example/\r\nHost: other", "https://hook.example/\0"),
        *(" https://hook.example/", "https://[::1", "https://hook..example/"),
    ],
    "slack": [
        *(HOOK, TEAMS, SLACK.replace("https", "http"), SLACK.replace(".com", ".com:8443"), f"{SLACK}#x", f"{SLACK}\n"),
        *(SLACK.replace("https://", "https://user:s3cr3t@"), SLACK.replace(".com", ".com.hook.example")),
        *(SLACK.replace("hooks.", "hooks-"), "https://hooks.slack.com/services/T0/B0", f"{SLACK}/more", f"{SLACK}/../x"),
        *("https://hooks.slack.com/triggers/T0/1/x", f"https://hook.example/{SLACK}", f"{SLACK}?x=1", f"{SLACK}?"),
        *("https://hooks.slack.com/services/T0/B0/%2e%2e", "https://hooks.slack.com/services/T0/B0/ä"),
    ],
    "teams": [
        *(HOOK, SLACK, TEAMS.replace("https", "http"), TEAMS.replace("azure.com", "azure.com.hook.example"), f"{TEAMS}#x"),
        *(TEAMS.replace(TEAMS_HOST, HOST), TEAMS.replace("https://", "https://user:s3cr3t@"), TEAMS_START),
        *(TEAMS.replace(TEAMS_HOST, f"{HOST}/{TEAMS_HOST}"), f"{TEAMS_START}?sv=1.0", f"{TEAMS_START}?sig="),
        *(TEAMS.replace(TEAMS_HOST, f"{HOST}\\@{TEAMS_HOST}"), TEAMS.replace(TEAMS_HOST, "logicxazure.com")),
        *(TEAMS.replace(TEAMS_HOST, host) for host in ("a.logic.azure.ru", "a.powerplatform.hook.example")),
        *(f"{TEAMS_START}?sig=s3cr3t%2F..", f"{TEAMS}&workflow=../s3cr3t", f"{TEAMS}&route=s3cr3t"),
        f"https://a..logic.azure.com/powerautomate/automations/direct/cu/1{TEAMS_START.partition('.com')[2]}?sig=s3cr3t",
    ],
}  # fmt: skip


LEADS_NOWHERE = {"nowhere.example", "xn--a-.example", "hook..example"}


def host_of(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


@pytest.mark.parametrize("kind", REFUSED)
def test_a_url_that_is_not_of_its_kind_or_not_public_is_refused(
    dora: Person, public: Names, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    for url in REFUSED[kind]:
        host = host_of(url)
        if host.endswith((".example", ".com", ".ru")) and host not in LEADS_NOWHERE:
            public.setdefault(host, [[PUBLIC]])
    public["inside.example"], public["both.example"] = [["10.0.0.1"]], [[PUBLIC, "fd00::1"]]
    caplog.set_level(1)

    for url in REFUSED[kind]:
        answer = post(dora, url, kind)
        assert answer.status_code == 400, (url, answer.content)
        assert bad_fields(answer) == {"url"}, url
        assert not is_secret(answer.content), url

    assert not is_secret(caplog.text)
    assert ok(dora.api.get(TARGETS))["data"] == []


@pytest.mark.parametrize(
    ("kind", "url"),
    [
        ("slack", f"{SLACK}/"),
        ("slack", SLACK.replace(".com", "-gov.com")),
        ("teams", TEAMS.replace("logic.azure.com", "logic.azure.com:443")),
        ("teams", TEAMS.replace(TEAMS_HOST, "default1.02.environment.api.powerplatform.com:443/powerautomate/automations/direct")),
        ("webhook", f"https://{HOST}:8443/"),
        ("webhook", f"https://{PUBLIC}/hook"),
    ],
)  # fmt: skip
def test_a_url_in_another_of_its_forms_is_taken(dora: Person, public: Names, kind: str, url: str) -> None:
    for host in ("hooks.slack-gov.com", "default1.02.environment.api.powerplatform.com"):
        public[host] = [[PUBLIC]]

    add(dora, kind, url)


def test_a_tenant_has_so_many_and_no_more(dora: Person, charlie: Person, public: Names, settings: Any) -> None:
    settings.QUOTA_ALERT_TARGETS_PER_TENANT = 2
    first = add(dora)
    add(dora)

    problem = refused(post(dora, HOOK), 409, "too_many_alert_targets")

    assert "2 alert targets" in problem["detail"]
    add(charlie)
    dora.api.delete(f"{TARGETS}/{first['id']}")
    add(dora)


def test_two_requests_for_the_last_place_make_one(dora: Person, public: Names, settings: Any) -> None:
    settings.QUOTA_ALERT_TARGETS_PER_TENANT = 2
    add(dora)

    answers = race([lambda: post(dora, HOOK)] * 2, at=QuotaUsage.objects.filter(tenant_id=dora.tenant_id))

    assert sorted(answer.status_code for answer in answers) == [201, 409]
    assert ok(dora.api.get(TARGETS))["pagination"]["total"] == 2


def test_every_answer_says_how_much_is_used(dora: Person, public: Names, settings: Any) -> None:
    settings.QUOTA_ALERT_TARGETS_PER_TENANT = 1
    cross(dora, 500)
    made = dora.api.post(TARGETS, {"kind": "webhook", "url": HOOK})
    path = made["Location"]
    answers = [made, post(dora, HOOK), post(dora, "x"), dora.api.get(path), dora.api.get(TARGETS)]
    answers += [dora.api.post(f"{path}/test"), dora.api.get(f"{path}?x=1"), dora.api.delete(path), dora.api.get(path)]

    assert [answer.status_code for answer in answers] == [201, 409, 400, 200, 200, 202, 400, 204, 404]
    for answer in answers:
        assert (answer["X-Quota-Used"], answer["X-Quota-Limit"]) == ("500", "1000")


# apprise's own options


def test_options_in_a_webhooks_query_are_sent_and_not_obeyed(dora: Person, listen: Listen) -> None:
    receiver, elsewhere = listen(), listen("elsewhere.example")
    receiver.statuses, receiver.headers = [302], {"Location": "https://elsewhere.example/"}
    query = (
        "method=DELETE&redirect=yes&verify=no&rto=0.001&cto=0.001&format=html&overflow=split&emojis=yes&retry=5&wait=9"
        "&+x-evil=1&-extra=1&:event=renamed&:title=&template=/etc/passwd&user=root&password=x&tags=a"
    )
    made = add(dora, url=f"https://{HOST}/in?{query}")
    cross(dora)

    run()

    [got] = receiver.got
    assert got.path == f"/in?{query}"
    assert (got.json["event"], got.json["title"].startswith("dora")) == ("quota.threshold_crossed", True)
    assert not {"x-evil", "authorization"} & got.headers.keys()
    assert elsewhere.got == []
    assert outcome(dora, made)[0] == "pending"


def test_a_query_cannot_switch_the_check_of_certificates_off(dora: Person, listen: Listen) -> None:
    receiver = listen(certified="other.example")
    add(dora, url=f"{HOOK}&verify=no")
    cross(dora)

    run()

    assert receiver.got == []


@pytest.mark.parametrize(
    "option", ["template=/etc/passwd", "redirect=yes", "verify=no", "channel=%23general", "mode=bot"]
)
def test_a_slack_url_takes_no_options(dora: Person, public: Names, option: str) -> None:
    assert bad_fields(post(dora, f"{SLACK}?{option}", "slack")) == {"url"}


def test_options_in_a_teams_url_do_nothing(dora: Person, listen: Listen) -> None:
    receiver = listen(TEAMS_HOST)
    options = (
        "template=/etc/passwd&redirect=yes&verify=no&method=DELETE&rto=0.001&:app_body=x&+x-evil=1&image=yes&wrap=no"
    )
    add(dora, "teams", f"{TEAMS}&{options}")
    add(dora, "teams")
    cross(dora)

    run()

    odd, plain = receiver.got
    assert (odd.path, odd.body) == (plain.path, plain.body)
    assert not {"x-evil"} & odd.headers.keys()


# Sending


def test_an_alert_reaches_each_kind_once_and_is_recorded(dora: Person, listen: Listen) -> None:
    receivers = {kind: listen(host) for kind, host in HOSTS.items()}
    made = {kind: add(dora, kind) for kind in KINDS}
    cross(dora)
    before = timezone.now()

    assert run() == 4, "three targets and the owner's mail"
    assert run() == run(timedelta(days=2)) == 0

    [slack], [teams], [webhook] = (receivers[kind].got for kind in KINDS)
    assert slack.path == "/services/T0S3CR3T/B0S3CR3T/xs3cr3tEnd4"
    assert teams.path == TEAMS.partition(TEAMS_HOST)[2]
    assert webhook.path == "/in/s3cr3t?key=s3cr3tEnd4"
    for kind, got in zip(KINDS, (slack, teams, webhook), strict=True):
        assert got.headers["host"] == HOSTS[kind]
        assert got.headers["content-type"].startswith("application/json")
        assert got.headers["user-agent"] == "En Garde"
        found = shown(dora, made[kind])
        assert (found["last_status"], found["last_error"]) == ("sent", None)
        assert before <= datetime.fromisoformat(found["last_sent_at"]) <= timezone.now()
        [row] = rows(dora, made[kind])
        assert (row.status, row.attempts, row.finished_at is not None) == ("sent", 1, True)
    assert mails_to(dora) == 1


def tell_all(person: Person, listen: Listen) -> dict[str, Receiver]:
    """Make a target of each kind, with a receiver that takes everything."""
    receivers = {kind: listen(host) for kind, host in HOSTS.items()}
    for kind in KINDS:
        add(person, kind)
    return receivers


def texts_of(kind: str, got: Any) -> tuple[str, str]:
    """Return the title and the text that somebody reads."""
    if kind == "webhook":
        return got.json["title"], got.json["message"]
    [attachment] = got.json["attachments"]
    if kind == "slack":
        return attachment["title"], attachment["text"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    assert attachment["content"]["type"] == "AdaptiveCard"
    title, text = (block["text"] for block in attachment["content"]["body"])
    return title, text


def test_people_read_what_is_used_and_which_plan_has_more(dora: Person, listen: Listen) -> None:
    receivers = tell_all(dora, listen)
    cross(dora)

    run()

    for kind, receiver in receivers.items():
        [got] = receiver.got
        title, text = texts_of(kind, got)
        assert title.endswith("has used 70 % of its storage")
        assert "720 bytes of 1000 bytes are used (72.00 %)." in text
        assert "The starter plan has 10 GB." in text


def test_a_webhook_gets_the_facts(dora: Person, listen: Listen) -> None:
    receiver = listen()
    add(dora)
    before = timezone.now()
    cross(dora, 960)

    run()

    facts = receiver.got[0].json
    occurred, alert_id = facts.pop("occurred_at"), facts.pop("alert_id")
    with house.inside(dora):
        assert str(Alert.objects.get().id) == alert_id
    assert occurred.endswith("Z")
    assert before <= datetime.fromisoformat(occurred) <= timezone.now()
    tenant = facts.pop("tenant")
    assert (facts.pop("title"), facts.pop("message")[:31]) == (
        f"{tenant} has used 95 % of its storage",
        "960 bytes of 1000 bytes are use",
    )
    assert facts == {
        "event": "quota.threshold_crossed",
        "tenant_id": str(dora.tenant_id),
        "threshold": 95,
        "level": "critical",
        "used_bytes": 960,
        "limit_bytes": 1000,
        "usage_percent": 96.0,
        "plan_tier": "free",
        "type": "failure",
        "version": "1.0",
        "attachments": [],
    }


@pytest.mark.parametrize("name", ["Studio\r\n\r\nX-Evil: 1", '"}],"x":"<script>', "日本語 😀 {{ 7 }} &amp;", "N" * 200])
def test_a_hostile_name_stays_text(dora: Person, listen: Listen, name: str) -> None:
    from engarde.accounts.models import Tenant

    receivers = tell_all(dora, listen)
    with system_scope("a test renames"):
        Tenant.objects.filter(id=dora.tenant_id).update(name=name)
    cross(dora)

    run()

    for kind, receiver in receivers.items():
        [got] = receiver.got
        title, _ = texts_of(kind, got)
        read = html.unescape(title) if kind == "slack" else title  # Slack unescapes what is between tags
        assert read == f"{' '.join(name.split())} has used 70 % of its storage"
        assert "x-evil" not in got.headers


def test_two_targets_of_one_address_are_both_told_and_other_tenants_are_not(
    dora: Person, charlie: Person, listen: Listen
) -> None:
    receiver, other = listen(), listen("other.example")
    add(dora)
    add(dora)
    add(charlie, url="https://other.example/")
    cross(dora)

    run()

    assert (len(receiver.got), len(other.got)) == (2, 0)


def test_two_runs_at_once_send_each_once(dora: Person, listen: Listen) -> None:
    receiver = listen(delay=0.1)
    for _ in range(4):
        add(dora)
    cross(dora)
    started = [threading.Thread(target=_run_and_close, daemon=True) for _ in range(2)]

    for thread in started:
        thread.start()
    for thread in started:
        thread.join(20)

    assert len(receiver.got) == 4


def _run_and_close() -> None:
    try:
        run()
    finally:
        connection.close()


@pytest.mark.usefixtures("many_senders")
def test_a_slow_target_holds_up_no_other(dora: Person, listen: Listen) -> None:
    slow, quick = listen("slow.example", delay=0.6), listen()
    for _ in range(3):
        add(dora, url="https://slow.example/")
    for _ in range(4):
        add(dora)
    cross(dora)
    began = time.monotonic()

    assert run() == 8

    assert (len(slow.got), len(quick.got)) == (3, 4)
    assert time.monotonic() - began < 1.7


@pytest.mark.parametrize("address", ["2606:4700:4700::1111", PUBLIC])
def test_an_address_in_place_of_a_name_is_called(dora: Person, listen: Listen, address: str) -> None:
    receiver = listen(address)
    made = add(dora, url=f"https://[{address}]/hook" if ":" in address else f"https://{address}/hook")
    cross(dora)

    run()

    assert outcome(dora, made) == ("sent", None)
    assert [got.path for got in receiver.got] == ["/hook"]


def test_a_name_in_another_script_is_called(dora: Person, listen: Listen) -> None:
    receiver = listen("xn--bcher-kva.example")
    made = add(dora, url="https://bücher.example/ä?ö=%C3%BC&%zz")
    cross(dora)

    run()

    assert outcome(dora, made) == ("sent", None)
    assert receiver.got[0].headers["host"] == "xn--bcher-kva.example"


# When it is not taken


def broken(how: str, listen: Listen, names: Names) -> str:
    """Make the webhook's target one that does not take messages, and return the reason that is to be given."""
    if how == "no server":
        with socket.create_server((LOOPBACK, 0)) as server:
            names[HOST] = [[(LOOPBACK, server.getsockname()[1])]]
        return "The connection was refused."
    if how == "no name":
        names[HOST] = [[]]
        return "Its name cannot be resolved."
    if how == "certificate":
        listen(certified="other.example")
        return "Its certificate is not valid: Hostname mismatch, certificate is not valid for 'hook.example'."
    if how == "redirect":
        listen(statuses=[307], headers={"Location": "https://elsewhere.example/s3cr3t"})
        return "It answered with status 307."
    listen(statuses=[int(how)], headers={"Retry-After": "99999"}, body=b"<b>s3cr3t</b>")
    return f"It answered with status {how}."


@pytest.mark.parametrize("how", ["no server", "no name", "certificate", "redirect", "429", "500"])
def test_what_is_not_taken_says_why_stops_nobody_else_and_is_tried_again(
    dora: Person, listen: Listen, names: Names, how: str
) -> None:
    names[HOST] = [[PUBLIC]]
    others, elsewhere = [listen(SLACK_HOST), listen(TEAMS_HOST)], listen("elsewhere.example")
    made, slack, teams = add(dora), add(dora, "slack"), add(dora, "teams")
    reason = broken(how, listen, names)
    cross(dora)

    assert run() == 3

    assert outcome(dora, made) == ("pending", reason)
    assert outcome(dora, slack) == outcome(dora, teams) == ("sent", None)
    assert [len(other.got) for other in others] == [1, 1]
    assert (elsewhere.got, mails_to(dora)) == ([], 1)
    assert not is_secret(shown(dora, made))

    works = listen()
    assert run(timedelta(seconds=55)) == 0
    assert run(timedelta(seconds=65)) == 1
    assert outcome(dora, made) == ("sent", None)
    assert len(works.got) == 1
    assert [len(other.got) for other in others] == [1, 1], "nobody is told twice"


def test_slack_says_ok_and_nothing_else_is_a_success(dora: Person, listen: Listen) -> None:
    listen(SLACK_HOST, body=b"s3cr3t invalid_payload")
    made = add(dora, "slack")
    cross(dora)

    run()

    assert outcome(dora, made) == ("pending", "Its answer is not one that stands for success.")


@pytest.mark.parametrize(("kind", "status"), [("webhook", 204), ("webhook", 299), ("teams", 202)])
def test_other_successes_count(dora: Person, listen: Listen, kind: str, status: int) -> None:
    listen(HOSTS[kind], statuses=[status], body=b"")
    made = add(dora, kind)
    cross(dora)

    run()

    assert outcome(dora, made) == ("sent", None)


def test_it_is_tried_ever_more_rarely_and_given_up_after_three_days(dora: Person, listen: Listen) -> None:
    receiver, made = listen(statuses=[503]), add(dora)
    cross(dora)
    begin = now = timezone.now()
    waits = []
    for already in (0, 1, 2, 9, 50):
        with system_scope("a test lets it fail"):
            AlertDelivery.objects.exclude(target=None).update(attempts=already)
        run_at(now)
        assert outcome(dora, made) == ("pending", "It answered with status 503.")
        now, before = rows(dora, made)[0].next_attempt_at, now
        waits.append((now - before) // timedelta(minutes=1))

    assert waits == [1, 2, 4, 360, 360]
    run_at(begin + timedelta(days=3) - timedelta(minutes=1))
    assert outcome(dora, made) == ("pending", "It answered with status 503.")
    run_at(begin + timedelta(days=3, hours=6))
    assert outcome(dora, made) == ("failed", "It answered with status 503.")
    assert shown(dora, made)["last_sent_at"] is None
    assert run(timedelta(days=9)) == 0
    assert len(receiver.got) == 7


# Targets that behave badly


def trickle(one: socket.socket, beginning: bytes) -> None:
    one.sendall(beginning)
    while True:
        one.sendall(b"x")
        time.sleep(0.02)


def flood(one: socket.socket, status: bytes = b"500 No") -> None:
    one.sendall(b"HTTP/1.1 " + status + b"\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        one.sendall(b"10000\r\n" + b"x" * 0x10000 + b"\r\n")


def unpacks_to_much(one: socket.socket) -> None:
    packer, block = zlib.compressobj(1, wbits=31), bytes(1_000_000)
    body = b"".join(packer.compress(block) for _ in range(100)) + packer.flush()
    one.sendall(f"HTTP/1.1 500 No\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)


SLOW: dict[str, Callable[[socket.socket], None]] = {
    "nothing": lambda one: time.sleep(9),
    "a status line without end": lambda one: trickle(one, b"HTTP/1.1 200 O"),
    "headers without end": lambda one: trickle(one, b"HTTP/1.1 200 OK\r\nX-Long: "),
    "a failure": lambda one: trickle(one, b"HTTP/1.1 500 No\r\nContent-Length: 99999\r\n\r\n"),
    "a success": lambda one: trickle(one, b"HTTP/1.1 200 OK\r\nContent-Length: 99999\r\n\r\n"),
    "a success of no length": lambda one: trickle(one, b"HTTP/1.1 200 OK\r\n\r\n"),
}
ODD: dict[str, tuple[Callable[[socket.socket], None], str]] = {
    "much": (flood, "It answered with status 500."),
    "much and a redirect": (lambda one: flood(one, b"302 Found\r\nLocation: /x"), "It answered with status 302."),
    "much once it is unpacked": (unpacks_to_much, "It answered with status 500."),
    "what is not packed as it says": (
        lambda one: one.sendall(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 6\r\n\r\ns3cr3t"),
        "The connection failed.",
    ),
    "no HTTP": (lambda one: one.sendall(b"\x16\x03 s3cr3t \x00\xff\r\n\r\n"), "The connection failed."),
    "nothing": (lambda one: None, "The connection failed."),
    "too many headers": (
        lambda one: one.sendall(b"HTTP/1.1 200 OK\r\n" + b"X-S3cr3t: 1\r\n" * 200),
        "The connection failed.",
    ),
    "a bad redirect": (
        lambda one: one.sendall(b"HTTP/1.1 301 Go\r\nLocation: https://[s3cr3t\r\nContent-Length: 0\r\n\r\n"),
        "It answered with status 301.",
    ),
}


@contextmanager
def all_of(
    person: Person, servers: Mapping[str, Callable[[socket.socket], None]], names: Names, authority: Authority
) -> Iterator[dict[str, dict[str, Any]]]:
    """Make a target of each server, and store so much that all of them are to be told."""
    made = {}
    with ExitStack() as stack:
        for number, (what, answer) in enumerate(servers.items()):
            host = f"bad{number}.example"
            names[host] = [[(LOOPBACK, stack.enter_context(raw_server(answer, authority.server(host))))]]
            made[what] = add(person, url=f"https://{host}/s3cr3t")
        cross(person)
        yield made


@pytest.mark.usefixtures("many_senders")
def test_an_answer_that_does_not_come_to_its_end_costs_one_time_out_whatever_of_it_came(
    dora: Person, listen: Listen, names: Names, authority: Authority, settings: Any
) -> None:
    settings.WEBHOOK_TIMEOUT_SECONDS = 1
    slack = listen(SLACK_HOST)
    add(dora, "slack")
    with all_of(dora, SLOW, names, authority) as made, raw_server(lambda one: time.sleep(9)) as port:
        names["mute.example"] = [[(LOOPBACK, port)]]
        made["no handshake"] = add(dora, url="https://mute.example/s3cr3t")
        began = time.monotonic()

        run()

        took = time.monotonic() - began
    expected = dict.fromkeys(made, ("pending", "It did not answer in time."))
    assert {what: outcome(dora, target) for what, target in made.items()} == expected
    assert (len(slack.got), mails_to(dora)) == (1, 1)
    assert took < 2.5


@pytest.mark.usefixtures("many_senders")
def test_an_odd_answer_costs_little_memory_and_says_why(dora: Person, names: Names, authority: Authority) -> None:
    with all_of(dora, {what: answer for what, (answer, _) in ODD.items()}, names, authority) as made:
        tracemalloc.start()
        began = time.monotonic()

        run()

        took, peak = time.monotonic() - began, tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    expected = {what: ("pending", reason) for what, (_, reason) in ODD.items()}
    assert {what: outcome(dora, target) for what, target in made.items()} == expected
    assert peak < 20_000_000
    assert took < 5


def test_many_addresses_that_do_not_answer_cost_one_time_out(
    dora: Person, names: Names, authority: Authority, settings: Any
) -> None:
    settings.WEBHOOK_TIMEOUT_SECONDS = 1
    with ExitStack() as stack:
        # A queue of one that is full: who knocks gets no answer.
        server = stack.enter_context(socket.create_server((LOOPBACK, 0), backlog=0))
        port = server.getsockname()[1]
        stack.enter_context(socket.create_connection((LOOPBACK, port)))
        names[HOST] = [[(LOOPBACK, port)] * 20]
        made = add(dora)
        cross(dora)
        began = time.monotonic()

        run()

        took = time.monotonic() - began
    assert outcome(dora, made) == ("pending", "It did not answer in time.")
    assert took < 2.5


def test_a_name_server_that_hangs_holds_up_no_other(
    dora: Person, listen: Listen, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(addresses, "RESOLVE_SECONDS", 0.3)
    receiver = listen()
    names["hung.example"] = [[PUBLIC]]
    made = [add(dora, url="https://hung.example/s3cr3t"), add(dora)]
    quick = socket.getaddrinfo
    hung = threading.Event()

    def stub(host: Any, *args: Any, **kwargs: Any) -> Any:
        return hung.wait(9) if host == "hung.example" else quick(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", stub)
    cross(dora)

    assert run() == 2
    hung.set()

    assert [outcome(dora, one) for one in made] == [("pending", "Its name cannot be resolved."), ("sent", None)]
    assert len(receiver.got) == 1


# Where it leads


def test_a_name_that_leads_inside_by_the_time_it_is_called_is_not_called(
    dora: Person, listen: Listen, names: Names, settings: Any
) -> None:
    inside = listen()
    settings.WEBHOOK_ALLOW_PRIVATE = False
    names[HOST] = [[PUBLIC], [(LOOPBACK, inside.port)]]
    made = add(dora)
    cross(dora)

    run()

    assert inside.got == []
    assert outcome(dora, made) == ("pending", "It leads to an address that is not public.")
    settings.WEBHOOK_ALLOW_PRIVATE = True
    assert run(timedelta(seconds=65)) == 1, "it was the address only"
    assert len(inside.got) == 1


def test_a_well_known_host_is_checked_like_any_other(dora: Person, listen: Listen, names: Names, settings: Any) -> None:
    inside = {kind: listen(host) for kind, host in HOSTS.items()}
    settings.WEBHOOK_ALLOW_PRIVATE = False
    for kind, host in HOSTS.items():
        assert bad_fields(post(dora, KINDS[kind], kind)) == {"url"}
        names[host] = [[PUBLIC], [(LOOPBACK, inside[kind].port)]]
        add(dora, kind)
    cross(dora)

    assert run() == 1

    assert [receiver.got for receiver in inside.values()] == [[], [], []]


@pytest.mark.parametrize("order", [1, -1])
def test_of_a_name_with_a_public_and_a_private_address_neither_is_called(
    dora: Person, listen: Listen, names: Names, settings: Any, monkeypatch: pytest.MonkeyPatch, order: int
) -> None:
    settings.WEBHOOK_ALLOW_PRIVATE = False
    monkeypatch.setattr(addresses, "is_public", lambda address: address in {PUBLIC, "127.0.0.2"})
    with socket.create_server(("127.0.0.2", 0)) as outside, socket.create_server((LOOPBACK, 0)) as inside:
        both = [(LOOPBACK, inside.getsockname()[1]), ("127.0.0.2", outside.getsockname()[1])][::order]
        names[HOST] = [[PUBLIC], both]
        settings.WEBHOOK_TIMEOUT_SECONDS = 0.3
        made = add(dora)
        cross(dora)

        run()

        for server in (outside, inside):
            server.setblocking(False)
            with pytest.raises(BlockingIOError):
                server.accept()
    assert outcome(dora, made) == ("pending", "It leads to an address that is not public.")


def test_what_is_called_is_what_was_checked(
    dora: Person, listen: Listen, names: Names, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The name leads to a good address when it is checked and would lead inside a moment later; it is not asked again."""
    settings.WEBHOOK_ALLOW_PRIVATE = False
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.2")
    inside = listen()
    checked = listen(host="127.0.0.2")
    good = [("127.0.0.2", checked.port)]
    names[HOST] = [good, good, [(LOOPBACK, inside.port)]]
    made = add(dora)
    cross(dora)

    run()

    assert (len(checked.got), inside.got) == (1, [])
    assert outcome(dora, made) == ("sent", None)
    assert names[HOST] == [[(LOOPBACK, inside.port)]], "asked once for the check and once for the call"


def test_the_next_address_is_tried_when_one_cannot_be_reached(dora: Person, listen: Listen, names: Names) -> None:
    receiver = listen()
    names[HOST] = [[("127.0.0.3", receiver.port), (LOOPBACK, receiver.port)]]
    made = add(dora)
    cross(dora)

    run()

    assert outcome(dora, made) == ("sent", None)


def test_an_authority_that_is_not_trusted_is_refused(dora: Person, listen: Listen, settings: Any) -> None:
    receiver, made = listen(), add(dora)
    settings.WEBHOOK_CA_FILE = ""
    cross(dora)

    run()

    assert receiver.got == []
    status, error = outcome(dora, made)
    assert (status, str(error)[:30]) == ("pending", "Its certificate is not valid: ")


def test_the_environment_has_no_say(
    dora: Person, listen: Listen, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    targets = [listen(host) for host in HOSTS.values()]
    netrc = tmp_path / "netrc"
    netrc.write_text("default login root password s3cr3t\n")
    with receiving() as proxy:
        for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.setenv("NO_PROXY", "")
        monkeypatch.setenv("NETRC", str(netrc))
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(netrc))
        for kind in KINDS:
            add(dora, kind)
        cross(dora)

        assert run() == 4

        assert proxy.got == []
    assert [len(target.got) for target in targets] == [1, 1, 1]
    assert not any("authorization" in target.got[0].headers for target in targets)


# Tests of a target


def test_a_test_is_sent_by_the_next_run(dora: Person, listen: Listen) -> None:
    receivers = {kind: listen(host) for kind, host in HOSTS.items()}
    made = {kind: add(dora, kind) for kind in KINDS}

    assert [ask_for_test(dora, target) for target in made.values()] == [
        {**target, "last_status": "pending"} for target in made.values()
    ]
    assert [receiver.got for receiver in receivers.values()] == [[], [], []]
    assert (run(), run()) == (3, 0)

    for kind, receiver in receivers.items():
        [got] = receiver.got
        title, text = texts_of(kind, got)
        assert title.endswith(": a test of storage alerts")
        assert text == "Storage alerts of En Garde will arrive here."
        assert outcome(dora, made[kind]) == ("sent", None)
    assert receivers["webhook"].got[0].json["event"] == "quota.test"
    assert mails_to(dora) == 0


def test_a_second_test_before_the_first_was_sent_makes_no_second_message(dora: Person, listen: Listen) -> None:
    receiver, made, other = listen(), add(dora), add(dora)
    ask_for_test(dora, made)
    ask_for_test(dora, made)
    ask_for_test(dora, other)

    assert run() == 2
    ask_for_test(dora, made)
    assert run() == 1
    assert len(receiver.got) == 3


def test_two_tests_at_once_make_one_message(dora: Person, listen: Listen) -> None:
    receiver, made = listen(), add(dora)

    answers = race([lambda: ask_for_test(dora, made)] * 3, at=AlertTarget.objects.filter(id=made["id"]))

    assert answers == [{**made, "last_status": "pending"}] * 3
    assert run() == 1
    assert len(receiver.got) == 1


def test_a_test_that_fails_is_not_tried_again_and_says_why(dora: Person, listen: Listen) -> None:
    receiver, made = listen(statuses=[500, 200]), add(dora)
    ask_for_test(dora, made)

    run()
    assert run(timedelta(days=1)) == 0

    assert len(receiver.got) == 1
    assert outcome(dora, made) == ("failed", "It answered with status 500.")
    ask_for_test(dora, made)
    assert run() == 1
    assert outcome(dora, made) == ("sent", None)


def test_a_test_wakes_the_sender(dora: Person, public: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    woken: list[str] = []
    monkeypatch.setattr("engarde.common.wake.after_commit", woken.append)
    made = add(dora)
    assert "quotas.send_alerts" not in woken

    ask_for_test(dora, made)

    assert woken.count("quotas.send_alerts") == 1


# What nobody may see


def test_no_log_line_has_a_url_in_it_whatever_happens(
    dora: Person, listen: Listen, names: Names, authority: Authority, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(1)
    odd = b"HTTP/1.1 200 OK\r\nno colon here\r\nContent-Length: 2\r\n\r\nok"
    names.update({host: [[PUBLIC], []] for host in HOSTS.values()})
    made = [add(dora, kind) for kind in KINDS]
    cross(dora)
    seen: list[set[str | None]] = []

    def attempt() -> None:
        run(timedelta(hours=7) * len(seen))
        seen.append({shown(dora, target)["last_error"] for target in made})

    attempt()
    for how in ({"certified": "other.example"}, {"statuses": [302], "headers": {"Location": SLACK}}, {}):
        for host in HOSTS.values():
            listen(host, **how)
        attempt()
    with raw_server(lambda one: one.sendall(odd), authority.server(*HOSTS.values())) as port:
        names.update({host: [[(LOOPBACK, port)]] for host in HOSTS.values()})
        for target in made:
            ask_for_test(dora, target)
        attempt()

    assert [len(errors) for errors in seen] == [1, 3, 1, 1, 1], "one reason for all, but each certificate has its name"
    assert seen[-1] == {None}
    assert not is_secret(seen)
    assert caplog.text.count("alert not sent") == 9
    assert [record for record in map(vars, caplog.records) if is_secret(record)] == []


# Keys


def test_a_url_that_no_key_reads_says_so_and_stops_nobody_else(dora: Person, listen: Listen, settings: Any) -> None:
    receiver = listen()
    lost = Fernet.generate_key().decode()
    settings.ENCRYPTION_KEYS = [lost]
    made = add(dora)
    settings.ENCRYPTION_KEYS = []
    other = add(dora)
    cross(dora)

    assert run() == 2

    reason = "no key of ENCRYPTION_KEYS reads this secret"
    assert outcome(dora, made) == ("pending", reason)
    assert outcome(dora, other) == ("sent", None)
    assert (len(receiver.got), mails_to(dora)) == (1, 1)
    assert run(timedelta(days=2)) == 0
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode(), lost]
    assert run(timedelta(days=2, hours=7)) == 1
    assert len(receiver.got) == 2


def test_a_url_that_no_key_ever_reads_is_given_up(dora: Person, public: Names, settings: Any) -> None:
    settings.ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    made = add(dora)
    settings.ENCRYPTION_KEYS = []
    cross(dora)

    run()
    run(timedelta(days=3, minutes=1))

    assert outcome(dora, made) == ("failed", "no key of ENCRYPTION_KEYS reads this secret")
    ask_for_test(dora, made)
    run()
    assert outcome(dora, made) == ("failed", "no key of ENCRYPTION_KEYS reads this secret")
