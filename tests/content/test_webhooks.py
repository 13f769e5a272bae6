"""Webhooks: made by admins, told of each version, signed after the Standard Webhooks specification, tried again, replayed."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography.fernet import Fernet
from django.core import mail
from django.db import connection
from django.test import Client
from django.utils import timezone
from standardwebhooks import Webhook as Verifier
from standardwebhooks import WebhookVerificationError

from content.models import ContentVersion, Delivery
from content.webhooks import operations, sender
from content.webhooks.transport import Answer
from engarde.accounts import mailer
from engarde.accounts.models import Mail, User
from engarde.accounts.roles import Role, Scope
from engarde.common.problems import Problem
from engarde.common.scopes import system_scope, tenant_scope
from tests import people, tiers
from tests.content.webhooks import deliveries, forget_all, make_due, row, send, shown, subscribe, waits
from tests.crash import kill_at
from tests.people import JSONClient, Person
from tests.receivers import Receiver, receiving


@pytest.fixture(autouse=True)
def loopback_is_allowed(database: None, settings: Any) -> Iterator[None]:
    """Receivers of tests listen on loopback, without TLS; nothing is left to send."""
    settings.WEBHOOK_ALLOW_HTTP = settings.WEBHOOK_ALLOW_PRIVATE = True
    settings.WEBHOOK_TIMEOUT_SECONDS = 3
    forget_all()
    yield
    forget_all()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that takes everything."""
    with receiving() as one:
        yield one


# Making them


def test_the_secret_is_shown_on_creation_only(alice: Person) -> None:
    made = subscribe(
        alice, "http://127.0.0.1:8000/hook", events=["content.updated", "content.created"], description="d"
    )

    assert made["secret"].startswith("whsec_")
    assert made["events"] == ["content.created", "content.updated"]
    known = {name: value for name, value in made.items() if name != "secret"}
    assert shown(alice, made) == known
    assert alice.api.get("/api/webhooks").json()["data"] == [known]
    assert known["is_active"] is True


def test_the_secret_is_not_in_the_database_as_it_is(alice: Person) -> None:
    made = subscribe(alice, "http://127.0.0.1:8000/hook")

    assert made["secret"].removeprefix("whsec_") not in row(made).secret


def test_a_new_one_has_an_address_of_its_own(alice: Person) -> None:
    answer = alice.api.post("/api/webhooks", {"url": "http://127.0.0.1:8000/hook"})

    assert answer["Location"] == f"/api/webhooks/{answer.json()['id']}"
    assert alice.api.get(answer["Location"]).status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("url", None),
        ("url", ""),
        ("url", "nonsense"),
        ("url", "http://127.0.0.1:8000/" + "a" * 2000),
        ("events", ["content.exploded"]),
        ("events", ["webhook.test"]),
        ("events", "content.created"),
        ("description", "d" * 201),
        ("secret", "whsec_mine"),
        ("is_active", False),
    ],
)
def test_bad_input_is_named(alice: Person, field: str, value: Any) -> None:
    answer = alice.api.post("/api/webhooks", {"url": "http://127.0.0.1:8000/hook", field: value})

    assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")
    assert {error["field"].split(".")[0] for error in answer.json()["errors"]} == {field}
    assert alice.api.get("/api/webhooks").json()["data"] == []


def test_a_tenant_has_a_limited_number_even_when_all_are_made_at_once(alice: Person, settings: Any) -> None:
    settings.WEBHOOKS_PER_TENANT = 3

    def make(_: int) -> int:
        try:
            operations.create_webhook(tenant_id=alice.tenant_id, url="http://127.0.0.1:8000/hook")
        except Problem as problem:
            return problem.status
        finally:
            connection.close()
        return 201

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(make, range(6))) == [201] * 3 + [409] * 3
    answer = alice.api.post("/api/webhooks", {"url": "http://127.0.0.1:8000/hook"})
    assert (answer.status_code, answer.json()["code"]) == (409, "too_many_webhooks")


def test_it_can_be_changed(alice: Person) -> None:
    made = subscribe(alice, "http://127.0.0.1:8000/hook")

    answer = alice.api.patch(
        f"/api/webhooks/{made['id']}",
        {"url": "http://127.0.0.1:8000/other", "events": ["content.deleted"], "description": "new"},
    )

    assert answer.status_code == 200
    assert answer.json() == shown(alice, made)
    assert answer.json()["url"] == "http://127.0.0.1:8000/other"
    assert answer.json()["events"] == ["content.deleted"]


def test_a_deleted_one_is_gone_with_its_deliveries(alice: Person, receiver: Receiver) -> None:
    made = subscribe(alice, receiver.url)
    alice.writes()

    assert alice.api.delete(f"/api/webhooks/{made['id']}").status_code == 204

    assert alice.api.get(f"/api/webhooks/{made['id']}").status_code == 404
    assert send() == 0
    with system_scope("a test looks"):
        assert not Delivery.objects.filter(tenant_id=alice.tenant_id).exists()


def test_a_write_is_not_refused_because_its_webhook_is_deleted_meanwhile(alice: Person) -> None:
    made = subscribe(alice, "http://127.0.0.1:1025/hook")
    item = alice.writes()
    [first] = tiers.versions(item["id"])
    told, deleting = threading.Event(), threading.Event()

    def write() -> None:
        """Write a version in a transaction that ends only when the deletion is on its way."""
        try:
            with tenant_scope(alice.tenant_id):
                same = {
                    "size_bytes": 1,
                    "sha256": first.sha256,
                    "change_type": "update",
                    "created_at": first.created_at,
                }
                ContentVersion.objects.create(tenant_id=alice.tenant_id, content_id=item["id"], version=2, **same)
                told.set()
                deleting.wait(5)
                time.sleep(0.3)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        assert told.wait(5)
        deleting.set()
        operations.delete_webhook(tenant_id=alice.tenant_id, webhook_id=UUID(made["id"]))
        writing.result()

    with system_scope("a test looks"):
        assert not Delivery.objects.filter(tenant_id=alice.tenant_id).exists()


# Who may


def every_call(webhook_id: Any, delivery_id: Any) -> list[tuple[str, str, Any]]:
    one = f"/api/webhooks/{webhook_id}"
    return [
        ("get", one, None),
        ("patch", one, {"description": "mine"}),
        ("delete", one, None),
        ("post", f"{one}/rotate-secret", {}),
        ("post", f"{one}/test", None),
        ("get", f"{one}/deliveries", None),
        ("get", f"{one}/deliveries/{delivery_id}", None),
        ("post", f"{one}/deliveries/{delivery_id}/replay", None),
    ]


def test_an_outsider_cannot_tell_a_webhook_from_none(alice: Person, charlie: Person, receiver: Receiver) -> None:
    made = subscribe(alice, receiver.url)
    alice.writes()
    before, [delivery] = shown(alice, made), deliveries(alice, made)

    theirs, none = every_call(made["id"], delivery["id"]), every_call(uuid4(), uuid4())
    for (method, path, body), (_, nowhere, _) in zip(theirs, none, strict=True):
        answers = [getattr(charlie.api, method)(one, body, HTTP_X_REQUEST_ID="same") for one in (path, nowhere)]
        assert [answer.status_code for answer in answers] == [404, 404]
        assert answers[0].content == answers[1].content
    assert charlie.api.get("/api/webhooks").json()["data"] == []
    assert (shown(alice, made), deliveries(alice, made)) == (before, [delivery])


def test_a_delivery_is_found_under_its_own_webhook_only(alice: Person, receiver: Receiver) -> None:
    made, other = subscribe(alice, receiver.url), subscribe(alice, receiver.url, events=["content.deleted"])
    alice.writes()
    [delivery] = deliveries(alice, made)

    path = f"/api/webhooks/{other['id']}/deliveries/{delivery['id']}"

    assert alice.api.get(path).status_code == 404
    assert alice.api.post(f"{path}/replay").status_code == 404


@pytest.mark.parametrize("role", [Role.EDITOR, Role.VIEWER])
def test_editors_and_viewers_may_not(alice: Person, role: Role) -> None:
    member = people.new_colleague(alice, role)
    made = subscribe(alice, "http://127.0.0.1:8000/hook")

    calls = [("get", "/api/webhooks", None), ("post", "/api/webhooks", {}), *every_call(made["id"], uuid4())]

    for method, path, body in calls:
        answer = getattr(member.api, method)(path, body)
        assert (answer.status_code, answer.json()["code"]) == (403, "permission_denied")


def test_admins_and_keys_with_the_admin_scope_may(alice: Person) -> None:
    admin = people.new_colleague(alice, Role.ADMIN)
    subscribe(admin, "http://127.0.0.1:8000/hook")
    key = alice.api.post("/api/api-keys", {"name": "k", "scopes": [Scope.ADMIN]}).json()["key"]
    client = JSONClient()
    client.credentials(HTTP_X_API_KEY=key)

    assert len(client.get("/api/webhooks").json()["data"]) == 1


# What is sent


def test_a_message_is_signed_as_the_specification_says(alice: Person, receiver: Receiver) -> None:
    made = subscribe(alice, f"{receiver.url}/hook?token=a")
    item = alice.writes(title="Ünïcode title")

    assert send() == 1

    [got] = receiver.got
    assert got.path == "/hook?token=a"
    assert got.headers["content-type"] == "application/json"
    said = Verifier(made["secret"]).verify(got.body, got.headers)
    assert said["type"] == "content.created"
    assert said["data"] == {
        "id": item["id"],
        "version": 1,
        "tenant_id": str(alice.tenant_id),
        "title": "Ünïcode title",
        "content_type": "post",
        "status": "draft",
        "brand_id": str(alice.brand_id),
        "change_type": "create",
        "changed_by": said["data"]["changed_by"],
        "changed_fields": said["data"]["changed_fields"],
        "size_bytes": len("A body"),
    }
    assert datetime.fromisoformat(said["timestamp"]) == datetime.fromisoformat(item["created_at"])
    assert said["timestamp"].endswith("Z")
    assert abs(int(got.headers["webhook-timestamp"]) - timezone.now().timestamp()) < 60
    [delivery] = deliveries(alice, made)
    assert got.id == delivery["id"]
    assert (delivery["status"], delivery["attempts"], delivery["response_status"]) == ("delivered", 1, 200)


def test_a_message_that_was_tampered_with_does_not_verify(alice: Person, receiver: Receiver) -> None:
    made = subscribe(alice, receiver.url)
    alice.writes()
    send()
    [got] = receiver.got
    verifier = Verifier(made["secret"])

    with pytest.raises(WebhookVerificationError):
        verifier.verify(got.body.replace(b"A title", b"B title"), got.headers)
    with pytest.raises(WebhookVerificationError):
        verifier.verify(got.body, {**got.headers, "webhook-id": str(uuid4())})
    with pytest.raises(WebhookVerificationError):
        Verifier(subscribe(alice, receiver.url)["secret"]).verify(got.body, got.headers)


def test_each_kind_of_change_is_told_once(alice: Person, receiver: Receiver) -> None:
    subscribe(alice, receiver.url)
    item_id = alice.writes()["id"]
    for changes in ({"body": "another"}, {"status": "published"}, {"status": "archived"}):
        assert alice.api.patch(f"/api/content/{item_id}", changes).status_code == 200
    alice.api.delete(f"/api/content/{item_id}")
    alice.api.post(f"/api/content/{item_id}/restore")

    assert send() == 6

    told = {one.json["data"]["version"]: one.json["type"] for one in receiver.got}
    assert list(dict(sorted(told.items())).values()) == [
        *("content.created", "content.updated", "content.published", "content.archived"),
        *("content.deleted", "content.restored"),
    ]
    assert {one.json["data"]["change_type"] for one in receiver.got} == {
        *("create", "update", "publish", "archive", "delete", "restore")
    }
    assert send() == 0


def test_only_the_events_that_were_asked_for_are_told(alice: Person, receiver: Receiver) -> None:
    subscribe(alice, receiver.url, events=["content.deleted"])
    item_id = alice.writes()["id"]
    alice.api.delete(f"/api/content/{item_id}")

    send()

    assert [one.json["type"] for one in receiver.got] == ["content.deleted"]


def test_nobody_hears_of_anothers_content(alice: Person, charlie: Person, receiver: Receiver) -> None:
    subscribe(charlie, receiver.url)
    alice.writes()

    assert send() == 0


def test_of_a_purged_item_what_is_known_is_told(alice: Person, receiver: Receiver) -> None:
    subscribe(alice, receiver.url)
    item_id = alice.writes()["id"]
    with system_scope("a test purges"), connection.cursor() as cursor:
        for table, column in (("content_versions", "content_id"), ("content_storage_metadata", "id")):
            for child in ("content_tags", "content_platforms", "content_search", "content_body_spool"):
                cursor.execute(f"DELETE FROM {child} WHERE content_id = %s", [item_id])
            cursor.execute(f"DELETE FROM {table} WHERE {column} = %s", [item_id])

    send()

    [got] = receiver.got
    known = {name: value for name, value in got.json["data"].items() if value is not None}
    assert known == {"id": item_id, "version": 1, "tenant_id": str(alice.tenant_id), "change_type": "create"}


def test_after_a_rotation_both_secrets_sign_until_the_overlap_is_over(alice: Person, receiver: Receiver) -> None:
    made = subscribe(alice, receiver.url)
    rotated = alice.api.post(f"/api/webhooks/{made['id']}/rotate-secret", {}).json()
    assert rotated["secret"] != made["secret"]
    assert "secret" not in shown(alice, made)

    alice.writes()
    send()
    for secret in (made["secret"], rotated["secret"]):
        Verifier(secret).verify(receiver.got[0].body, receiver.got[0].headers)

    alice.writes()
    send(now=timezone.now() + timedelta(hours=25))
    Verifier(rotated["secret"]).verify(receiver.got[1].body, receiver.got[1].headers)
    with pytest.raises(WebhookVerificationError):
        Verifier(made["secret"]).verify(receiver.got[1].body, receiver.got[1].headers)


def test_a_rotation_without_overlap_ends_the_old_secret_at_once(alice: Person, receiver: Receiver) -> None:
    made = subscribe(alice, receiver.url)
    alice.api.post(f"/api/webhooks/{made['id']}/rotate-secret", {"overlap_hours": 0})
    alice.writes()

    send()

    assert " " not in receiver.got[0].headers["webhook-signature"]
    with pytest.raises(WebhookVerificationError):
        Verifier(made["secret"]).verify(receiver.got[0].body, receiver.got[0].headers)


def test_a_secret_that_cannot_be_read_is_an_error_of_the_attempt(
    alice: Person, receiver: Receiver, settings: Any
) -> None:
    made = subscribe(alice, receiver.url)
    alice.writes()
    settings.SECRET_KEY = "another key than the secret was encrypted under"

    send()

    assert receiver.got == []
    assert "ENCRYPTION_KEYS" in deliveries(alice, made)[0]["last_error"]


def test_secrets_are_renewed_so_that_an_old_key_can_go(alice: Person, receiver: Receiver, settings: Any) -> None:
    new = Fernet.generate_key().decode()
    made, lost = subscribe(alice, receiver.url), subscribe(alice, receiver.url, events=["content.deleted"])
    rotated = alice.api.post(f"/api/webhooks/{made['id']}/rotate-secret", {}).json()
    with system_scope("a test damages"), connection.cursor() as cursor:
        cursor.execute("UPDATE content_webhooks SET secret = 'damaged' WHERE id = %s", [lost["id"]])
    settings.ENCRYPTION_KEYS = [new]

    assert operations.renew_secrets(tenant_id=alice.tenant_id).renewed == 1

    settings.SECRET_KEY = "another, so that only the new key is left"
    alice.writes()
    send()
    for secret in (made["secret"], rotated["secret"]):
        Verifier(secret).verify(receiver.got[0].body, receiver.got[0].headers)


# Tests


def test_a_test_is_sent_once_and_says_so(alice: Person, receiver: Receiver) -> None:
    made = subscribe(alice, receiver.url, events=["content.deleted"])

    answer = alice.api.post(f"/api/webhooks/{made['id']}/test")

    assert (answer.status_code, answer.json()["status"], answer.json()["content_id"]) == (202, "pending", None)
    assert send() == 1
    said = Verifier(made["secret"]).verify(receiver.got[0].body, receiver.got[0].headers)
    assert said["type"] == "webhook.test"
    assert said["data"]["webhook_id"] == made["id"]
    assert alice.api.get(answer["Location"]).json()["status"] == "delivered"


def test_a_test_that_fails_is_not_tried_again_and_not_held_against_the_webhook(
    alice: Person, receiver: Receiver
) -> None:
    receiver.statuses = [500]
    made = subscribe(alice, receiver.url)
    alice.api.post(f"/api/webhooks/{made['id']}/test")

    assert send() == 1

    [delivery] = deliveries(alice, made)
    assert (delivery["status"], delivery["response_status"]) == ("failed", 500)
    assert shown(alice, made)["failures_in_a_row"] == 0


def test_one_that_is_switched_off_can_be_tested(alice: Person, receiver: Receiver) -> None:
    made = subscribe(alice, receiver.url)
    alice.api.patch(f"/api/webhooks/{made['id']}", {"is_active": False})
    alice.api.post(f"/api/webhooks/{made['id']}/test")

    send()

    assert [one.json["type"] for one in receiver.got] == ["webhook.test"]


# Trying again


@pytest.mark.parametrize("status", [301, 302, 400, 404, 429, 500, 503])
def test_anything_but_a_2xx_is_tried_again_under_the_same_id(alice: Person, receiver: Receiver, status: int) -> None:
    receiver.statuses, receiver.body = [status, 204], b"Sorry\0 about   that"
    made = subscribe(alice, receiver.url)
    alice.writes()

    send()
    [delivery] = deliveries(alice, made)
    assert (delivery["status"], delivery["response_status"]) == ("pending", status)
    assert delivery["last_error"] == f"It answered {status}: Sorry about that"
    assert shown(alice, made)["failures_in_a_row"] == 1
    assert send() == 0
    make_due(made)
    send()

    [delivery] = deliveries(alice, made)
    assert (delivery["status"], delivery["attempts"], delivery["last_error"]) == ("delivered", 2, None)
    assert delivery["delivered_at"] is not None
    assert len({one.id for one in receiver.got}) == 1
    assert (shown(alice, made)["failures_in_a_row"], shown(alice, made)["failing_since"]) == (0, None)
    verifier = Verifier(made["secret"])
    assert all(verifier.verify(one.body, one.headers) for one in receiver.got)


def test_the_waits_grow_over_about_three_days_and_then_it_is_failed(alice: Person, receiver: Receiver) -> None:
    receiver.statuses = [500]
    made = subscribe(alice, receiver.url)
    alice.writes()

    for expected in sender.WAITS:
        send()
        waited = waits(made)
        assert expected * 0.99 - timedelta(seconds=2) <= waited <= expected * (1 + sender.JITTER)
        make_due(made)
    send()

    assert timedelta(days=2) < sum(sender.WAITS, timedelta()) < timedelta(days=4)
    [delivery] = deliveries(alice, made)
    assert (delivery["status"], delivery["attempts"]) == ("failed", len(sender.WAITS) + 1)
    assert delivery["next_attempt_at"] is None
    make_due(made)
    assert send() == 0


def test_a_target_that_asks_for_more_time_gets_it(alice: Person, receiver: Receiver) -> None:
    receiver.statuses, receiver.headers = [503], {"Retry-After": "600"}
    made = subscribe(alice, receiver.url)
    alice.writes()

    send()

    assert timedelta(seconds=590) < waits(made) < timedelta(seconds=730)


def test_nobody_listening_is_a_failure_without_a_status(alice: Person) -> None:
    made = subscribe(alice, "http://127.0.0.1:1025/hook")
    alice.writes()

    send()

    [delivery] = deliveries(alice, made)
    assert (delivery["status"], delivery["response_status"]) == ("pending", None)
    assert "connection failed" in delivery["last_error"]


def test_one_that_is_gone_is_switched_off_and_its_owners_are_told(alice: Person, receiver: Receiver) -> None:
    receiver.statuses = [410]
    Mail.objects.all().delete()
    made = subscribe(alice, receiver.url)
    for _ in range(5):
        alice.writes()

    send()

    known = shown(alice, made)
    assert (known["is_active"], known["disabled_reason"]) == (False, "It answered 410 Gone.")
    assert {one["status"] for one in deliveries(alice, made)} == {"failed"}
    mailer.send_due(now=timezone.now())
    assert [message.to for message in mail.outbox] == [[alice.email]]
    assert "switched off" in mail.outbox[0].subject
    assert "token" not in str(mail.outbox[0].body)
    alice.writes()
    assert len(deliveries(alice, made)) == 5


def test_one_that_failed_for_days_in_a_row_is_switched_off(alice: Person, receiver: Receiver) -> None:
    receiver.statuses = [500, 200, 500]
    made = subscribe(alice, receiver.url)
    later = timezone.now()

    def fail_at(when: datetime) -> None:
        alice.writes()
        make_due(made)
        send(now=when)

    fail_at(later)
    fail_at(later + timedelta(days=3))  # one success: the days begin anew
    assert shown(alice, made)["failures_in_a_row"] <= 1
    receiver.statuses = [500]
    fail_at(later + timedelta(days=4))
    fail_at(later + timedelta(days=7))
    assert shown(alice, made)["is_active"] is True
    fail_at(later + timedelta(days=9, hours=1))

    known = shown(alice, made)
    assert (known["is_active"], known["disabled_reason"]) == (False, "It failed for 5 days in a row.")


def test_switched_off_by_hand_what_is_pending_fails_and_switched_on_it_begins_anew(
    alice: Person, receiver: Receiver
) -> None:
    receiver.statuses = [500, 200]
    made = subscribe(alice, receiver.url)
    alice.writes()
    send()

    alice.api.patch(f"/api/webhooks/{made['id']}", {"is_active": False})
    assert [one["status"] for one in deliveries(alice, made)] == ["failed"]
    alice.writes()
    assert send() == 0
    answer = alice.api.patch(f"/api/webhooks/{made['id']}", {"is_active": True})
    assert (answer.json()["failures_in_a_row"], answer.json()["disabled_reason"]) == (0, None)
    alice.writes()

    assert send() == 1
    assert [one["status"] for one in deliveries(alice, made)] == ["delivered", "failed"]


def test_a_delivery_that_was_written_while_its_webhook_was_switched_off_fails(
    alice: Person, receiver: Receiver
) -> None:
    made = subscribe(alice, receiver.url)
    alice.writes()
    with system_scope("a test switches off"), connection.cursor() as cursor:
        cursor.execute("UPDATE content_webhooks SET is_active = false WHERE id = %s", [made["id"]])

    send()

    assert receiver.got == []
    assert deliveries(alice, made)[0]["status"] == "failed"


# Deliveries


def test_deliveries_are_listed_newest_first_by_page_and_status(alice: Person, receiver: Receiver) -> None:
    receiver.statuses = [200, 410]
    made = subscribe(alice, receiver.url)
    ids = []
    for _ in range(2):
        ids.append(alice.writes()["id"])
        send()

    assert [one["content_id"] for one in deliveries(alice, made)] == ids[::-1]
    assert [one["content_id"] for one in deliveries(alice, made, pageSize=1, page=2)] == ids[:1]
    assert [one["content_id"] for one in deliveries(alice, made, status="delivered")] == ids[:1]
    assert [one["content_id"] for one in deliveries(alice, made, status="failed")] == ids[1:]
    assert deliveries(alice, made, status="pending") == []
    for query in ({"status": "lost"}, {"page": 0}, {"pageSize": 101}, {"event": "x"}):
        answer = alice.api.get(f"/api/webhooks/{made['id']}/deliveries", query)
        assert (answer.status_code, answer.json()["code"]) == (400, "validation_error")
    one = deliveries(alice, made)[0]
    assert alice.api.get(f"/api/webhooks/{made['id']}/deliveries/{one['id']}").json() == one


def test_a_replay_sends_it_again_with_its_id_and_all_retries(alice: Person, receiver: Receiver) -> None:
    made = subscribe(alice, receiver.url)
    alice.writes()
    send()
    [delivery] = deliveries(alice, made)

    receiver.statuses = [500, 200]
    answer = alice.api.post(f"/api/webhooks/{made['id']}/deliveries/{delivery['id']}/replay")
    assert (answer.status_code, answer.json()["status"], answer.json()["attempts"]) == (202, "pending", 0)
    send()
    assert timedelta() < waits(made) < timedelta(seconds=10)
    make_due(made)
    send()

    assert [one.id for one in receiver.got] == [delivery["id"]] * 3
    assert deliveries(alice, made)[0]["status"] == "delivered"


def test_nothing_is_replayed_to_one_that_is_switched_off(alice: Person, receiver: Receiver) -> None:
    receiver.statuses = [410]
    made = subscribe(alice, receiver.url)
    alice.writes()
    send()
    [delivery] = deliveries(alice, made)
    replay = f"/api/webhooks/{made['id']}/deliveries/{delivery['id']}/replay"

    answer = alice.api.post(replay)
    assert (answer.status_code, answer.json()["code"]) == (409, "webhook_disabled")
    receiver.statuses = [200]
    alice.api.patch(f"/api/webhooks/{made['id']}", {"is_active": True})
    assert alice.api.post(replay).status_code == 202
    send()

    assert deliveries(alice, made)[0]["status"] == "delivered"


def test_old_deliveries_are_forgotten_a_few_at_a_time_and_others_are_not(alice: Person, receiver: Receiver) -> None:
    made = subscribe(alice, receiver.url)
    for _ in range(3):
        alice.writes()
        send()
    receiver.statuses = [500]
    alice.writes()
    send()
    soon, late = timezone.now() + timedelta(days=29), timezone.now() + timedelta(days=30, minutes=1)

    assert operations.forget_old(now=soon, limit=10) == 0
    assert operations.forget_old(now=late, limit=2) == 2
    assert operations.forget_old(now=late, limit=2) == 1

    assert [one["status"] for one in deliveries(alice, made)] == ["pending"]


# Faults


def test_killed_between_sending_and_settling_it_is_sent_again_under_the_same_id(
    alice: Person, receiver: Receiver
) -> None:
    made = subscribe(alice, receiver.url)
    alice.writes()

    kill_at("content.webhooks.sender._settle", "before", SEND_IN_A_PROCESS)
    assert len(receiver.got) == 1
    assert send() == 0, "the lease has not ended"
    send(now=timezone.now() + sender.LEASE)

    assert len(receiver.got) == 2
    assert len({one.id for one in receiver.got}) == 1
    [delivery] = deliveries(alice, made)
    assert (delivery["status"], delivery["attempts"]) == ("delivered", 2)


def test_killed_after_claiming_nothing_is_lost(alice: Person, receiver: Receiver) -> None:
    made = subscribe(alice, receiver.url)
    alice.writes()

    kill_at("content.webhooks.transport.Courier.send", "before", SEND_IN_A_PROCESS)
    assert receiver.got == []
    send(now=timezone.now() + sender.LEASE)

    assert [one["status"] for one in deliveries(alice, made)] == ["delivered"]


SEND_IN_A_PROCESS = """
from django.conf import settings
from django.utils import timezone
from content.webhooks import sender

settings.WEBHOOK_ALLOW_HTTP = settings.WEBHOOK_ALLOW_PRIVATE = True
_ = sender._settle
sender.send_due(now=timezone.now)
"""


def test_a_late_settlement_does_not_overrule_the_sender_that_took_over(alice: Person, receiver: Receiver) -> None:
    made = subscribe(alice, receiver.url)
    alice.writes()
    [late] = sender._claim(timezone.now(), [])
    send(now=timezone.now() + sender.LEASE)

    sender._settle([(late, Answer(500, "It answered 500."))], timezone.now())

    assert [(one["status"], one["last_error"]) for one in deliveries(alice, made)] == [("delivered", None)]
    assert shown(alice, made)["failures_in_a_row"] == 0


def test_two_senders_side_by_side_send_everything_once(alice: Person, receiver: Receiver) -> None:
    subscribe(alice, receiver.url)
    for _ in range(30):
        alice.writes()

    with ThreadPoolExecutor(3) as pool:
        assert sum(pool.map(send_elsewhere, range(3))) == 30
    assert len({one.id for one in receiver.got}) == len(receiver.got) == 30


# Fairness


def send_elsewhere(_: int = 0) -> int:
    """Send in a thread of its own."""
    try:
        return send()
    finally:
        connection.close()


def test_a_slow_target_does_not_hold_up_a_fast_one(alice: Person, charlie: Person) -> None:
    with receiving(delay=2) as slow, receiving() as fast:
        subscribe(charlie, slow.url)
        subscribe(alice, fast.url)
        for _ in range(8):
            charlie.writes()
        alice.writes()
        began = datetime.now(UTC)

        with ThreadPoolExecutor(1) as pool:
            sending = pool.submit(send_elsewhere)
            while not fast.got:
                assert datetime.now(UTC) - began < timedelta(seconds=1.5)
            alice.writes()  # one that comes while the slow ones are under way
            while len(fast.got) < 2:
                assert datetime.now(UTC) - began < timedelta(seconds=3)
            assert len(slow.got) <= sender.SLOTS_OF_WEBHOOK * 2
            assert sending.result() == 10
        assert len(slow.got) == 8


def test_a_failing_target_gets_one_attempt_at_a_time(alice: Person) -> None:
    with receiving(statuses=[500]) as failing:
        made = subscribe(alice, failing.url)
        alice.writes()
        send()
        for _ in range(5):
            alice.writes()
        make_due(made)

        claimed = sender._claim(timezone.now(), [])

        assert len(claimed) == 1
        assert sender._claim(timezone.now(), claimed) == []


def test_no_tenant_takes_all_slots(alice: Person, charlie: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(8):
        subscribe(charlie, "http://127.0.0.1:1025/hook")
    for _ in range(5):
        charlie.writes()
    subscribe(alice, "http://127.0.0.1:1025/hook")
    for _ in range(3):
        alice.writes()
    monkeypatch.setattr(sender, "SLOTS", 6)

    claimed = sender._claim(timezone.now(), [])

    by_tenant = [message.tenant_id for message in claimed]
    assert (by_tenant.count(alice.tenant_id), by_tenant.count(charlie.tenant_id)) == (3, 3)
    monkeypatch.setattr(sender, "SLOTS", 1000)
    more = sender._claim(timezone.now(), claimed)
    assert len(more) == sender.SLOTS_OF_TENANT - 3


def test_one_courier_is_at_it_at_a_time_and_the_next_when_it_is_done(alice: Person, receiver: Receiver) -> None:
    receiver.delay = 1
    subscribe(alice, receiver.url)
    alice.writes()

    def work(_: int) -> int:
        try:
            return sender.run(now=timezone.now)
        finally:
            connection.close()

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(work, 0)
        while not receiver.got:
            assert not first.done()
        assert sender.run(now=timezone.now) == 0
        alice.writes()
        assert first.result() == 2, "what comes meanwhile is sent by the one that is at it"
    alice.writes()
    assert sender.run(now=timezone.now) == 1


def test_without_redis_webhooks_are_sent_all_the_same(
    alice: Person, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    import redis as redis_package

    from engarde.common import redis

    away = redis_package.Redis.from_url("redis://127.0.0.1:9/0", **redis.connection_options())
    monkeypatch.setattr(redis, "client", lambda: away)
    subscribe(alice, receiver.url)
    alice.writes()

    assert sender.run(now=timezone.now) == 1


# The admin's pages


def test_staff_look_at_webhooks_without_their_secrets(alice: Person, receiver: Receiver) -> None:
    made = subscribe(alice, receiver.url)
    alice.api.post(f"/api/webhooks/{made['id']}/rotate-secret", {})
    alice.writes()
    [delivery] = deliveries(alice, made)
    staff = User.objects.create_superuser(f"staff-{uuid4().hex}@example.com", "staff-password-1")
    browser = Client()
    browser.force_login(staff)

    for path in ("webhook/", f"webhook/{made['id']}/change/", "delivery/", f"delivery/{delivery['id']}/change/"):
        page = browser.get(f"/admin/content/{path}")
        assert page.status_code == 200
        assert "secret" not in page.content.decode().lower().replace("previous_secret_until", "").replace(
            "previous secret until", ""
        )
    assert browser.post(f"/admin/content/webhook/{made['id']}/delete/", {"post": "yes"}).status_code == 403
