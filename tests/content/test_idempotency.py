"""Idempotency keys: a create that is sent again does its work once, however it is repeated and whatever dies."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from typing import Any, cast

import pytest
from django.db import connection
from django.utils import timezone

from content import operations
from engarde.common import idempotency
from engarde.common.idempotency import Claim, Kept
from engarde.common.models import IdempotencyKey
from engarde.common.scopes import system_scope, tenant_scope
from quotas.models import QuotaUsage
from tests import crash
from tests.content.answers import bad_fields, ok, refused
from tests.people import Person
from tests.stored import stored_by

BODY = {"title": "A title", "type": "post", "body": "Wörld", "tags": ["b", "a"], "metadata": {"x": 1, "y": [1.5, None]}}


def post(person: Person, key: str = "key-1", path: str = "/api/content", **fields: Any) -> Any:
    return person.api.post(path, {**BODY, **fields}, HTTP_IDEMPOTENCY_KEY=key)


def claimed(person: Person, *, ago: timedelta = timedelta(), key: str = "key-1", **fields: Any) -> Claim:
    """Claim a key as a request does that began a while ago and is still running."""
    fingerprint = idempotency.fingerprint_of("POST", "/api/content", {**BODY, **fields})
    claim = idempotency.claim(tenant_id=person.tenant_id, key=key, fingerprint=fingerprint, now=timezone.now() - ago)
    assert isinstance(claim, Claim)
    return claim


def items(person: Person) -> int:
    stored = stored_by(person.tenant_id)
    assert stored.counters_are_true
    assert stored.items == stored.versions == stored.spooled
    return stored.items


# Replays


def test_the_first_answer_is_given_again(alice: Person) -> None:
    first, again = post(alice), post(alice)

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert (again["Location"], again["ETag"]) == (first["Location"], first["ETag"])
    assert again["Content-Type"] == first["Content-Type"]
    assert again["Idempotency-Replayed"] == "true"
    assert "Idempotency-Replayed" not in first
    assert again["X-Quota-Used"] == "6"
    assert items(alice) == 1


def test_it_is_the_first_answer_even_when_the_item_has_changed_since(alice: Person) -> None:
    first = post(alice)
    alice.api.patch(first["Location"], {"body": "other"})
    alice.api.delete(first["Location"])

    assert post(alice).content == first.content


@pytest.mark.parametrize("path", ["/api/content", "/api/content/"])
def test_a_request_is_the_same_however_it_is_spelt(alice: Person, path: str) -> None:
    first = post(alice)

    again = cast("Any", alice.api).generic(
        "POST",
        path,
        b'{"metadata": {"y": [1.5, null], "x": 1},  "tags": ["b","a"], "body": "W\\u00f6rld", "type": "post", "title": "A title"}',
        content_type="application/json; charset=utf-8",
        HTTP_IDEMPOTENCY_KEY="key-1",
    )

    assert again.status_code == 201, again.content
    assert again.content == first.content


def test_without_a_key_nothing_is_kept(alice: Person) -> None:
    for _ in range(2):
        assert alice.api.post("/api/content", BODY).status_code == 201
    assert items(alice) == 2
    with tenant_scope(alice.tenant_id):
        assert not IdempotencyKey.objects.exists()


@pytest.mark.parametrize(
    "fields",
    [{"body": "other"}, {"tags": ["a", "b"]}, {"metadata": {"x": 2}}, {"status": "draft"}, {"title": "a title"}],
)
def test_another_body_under_the_key_is_refused(alice: Person, fields: dict[str, Any]) -> None:
    post(alice)

    refused(post(alice, **fields), 422, "idempotency_mismatch")
    assert items(alice) == 1
    assert post(alice).status_code == 201


def test_keys_are_of_a_tenant_and_not_of_a_person(alice: Person, bob: Person, charlie: Person) -> None:
    first = post(alice)

    assert post(bob).content == first.content
    other = post(charlie, body="other")
    assert (other.status_code, "Idempotency-Replayed" in other) == (201, False)
    assert items(alice) == items(charlie) == 1


def test_keys_differ_by_every_character(alice: Person) -> None:
    for key in ("a", "A", "a ".strip() + "-", "x" * 255, "~!\"#$%&'()*+,/:;<=>?@[]^_`{|}"):
        assert "Idempotency-Replayed" not in post(alice, key)
    assert items(alice) == 5


@pytest.mark.parametrize("key", ["", "a b", "x" * 256, "é", "a\tb", "\x7f", "a\0"])
def test_a_key_of_odd_form_is_refused(alice: Person, key: str) -> None:
    assert bad_fields(post(alice, key)) == {"Idempotency-Key"}
    assert items(alice) == 0


# Errors free the key


def test_an_error_frees_the_key(alice: Person) -> None:
    refused(post(alice, status="scheduled"), 400, "validation_error")
    _limit(alice, 3)
    refused(post(alice), 403, "storage_quota_exceeded")
    refused(post(alice, body="x" * 1024**2 + "x"), 413, "content_too_large")
    _limit(alice, None)
    with tenant_scope(alice.tenant_id):
        assert not IdempotencyKey.objects.exists()

    first = post(alice, body="now it fits")

    assert first.status_code == 201
    assert "Idempotency-Replayed" not in first
    assert items(alice) == 1


def _limit(person: Person, limit: int | None) -> None:
    with tenant_scope(person.tenant_id):
        QuotaUsage.objects.update(storage_limit_override=limit, override_reason="A test.")


def test_an_unforeseen_error_frees_the_key_too(alice: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    alice_api = alice.api
    alice_api.raise_request_exception = False
    with monkeypatch.context() as patch:
        patch.setattr(operations, "brand_of", lambda *_: 1 / 0)
        answer = alice_api.post("/api/content", BODY, HTTP_IDEMPOTENCY_KEY="key-1")
    assert answer.status_code == 500

    assert post(alice).status_code == 201
    assert items(alice) == 1


# While the first still runs


def test_it_waits_for_the_first(alice: Person, charlie: Person) -> None:
    claim = claimed(alice)

    answer = post(alice)
    refused(answer, 409, "idempotency_in_progress")
    assert int(answer["Retry-After"]) > 0
    refused(post(alice, body="other"), 422, "idempotency_mismatch")
    assert post(charlie).status_code == 201

    claim.release()
    assert post(alice).status_code == 201
    assert items(alice) == 1


def test_a_key_whose_owner_takes_too_long_is_taken_over_once(alice: Person) -> None:
    late = claimed(alice, ago=timedelta(minutes=10, seconds=1))

    first = post(alice)

    assert first.status_code == 201
    with pytest.raises(idempotency.Overtaken), tenant_scope(alice.tenant_id):
        late.keep(fingerprint=b"", status=201, headers={}, body={})
    late.release()
    assert post(alice).content == first.content
    assert items(alice) == 1


def test_nobody_takes_over_before_the_time(alice: Person) -> None:
    claimed(alice, ago=timedelta(minutes=9, seconds=50))

    refused(post(alice), 409, "idempotency_in_progress")


def test_one_that_was_overtaken_stores_nothing(alice: Person) -> None:
    late = claimed(alice, ago=timedelta(minutes=11))
    first = post(alice)

    def keep_late(_item: Any) -> None:
        late.keep(fingerprint=b"", status=201, headers={}, body={})

    with pytest.raises(idempotency.Overtaken):
        operations.create_content(
            tenant_id=alice.tenant_id, author_id=None, fields=BODY, now=timezone.now(), last=keep_late
        )
    assert items(alice) == 1
    assert post(alice).content == first.content


def test_answers_are_kept_for_a_day(alice: Person) -> None:
    first = post(alice)

    _age(alice, timedelta(hours=23, minutes=59))
    assert post(alice, body="Wörld").content == first.content
    _age(alice, timedelta(minutes=2))
    second = post(alice, body="other")

    assert second.status_code == 201
    assert "Idempotency-Replayed" not in second
    assert post(alice, body="other").content == second.content
    assert items(alice) == 2


def _age(person: Person, by: timedelta) -> None:
    with tenant_scope(person.tenant_id), connection.cursor() as cursor:
        shift = {"by": f"{by.total_seconds()} seconds"}
        cursor.execute(
            "UPDATE idempotency_keys SET expires_at = expires_at - %(by)s::interval, "
            "locked_until = locked_until - %(by)s::interval",
            shift,
        )


def test_old_keys_are_removed_and_young_ones_stay(alice: Person) -> None:
    now = timezone.now()
    for key, ago in (("old", timedelta(hours=25)), ("young", timedelta(hours=23))):
        claimed(alice, key=key, ago=ago)

    while idempotency.forget_expired(now=now, limit=1000):
        pass

    with system_scope("a test looks"):
        assert list(IdempotencyKey.objects.filter(tenant_id=alice.tenant_id).values_list("key", flat=True)) == ["young"]


# At once, and killed


def test_of_twenty_at_once_one_does_the_work(alice: Person) -> None:
    def send(_number: int) -> tuple[int, bytes]:
        try:
            answer = post(alice)
            return answer.status_code, answer.content if answer.status_code == 201 else b""
        finally:
            connection.close()

    with ThreadPoolExecutor(20) as pool:
        answers = Counter(pool.map(send, range(20)))

    assert {status for status, _ in answers} <= {201, 409}
    assert len({body for status, body in answers if status == 201}) == 1
    assert items(alice) == 1
    assert post(alice)["Idempotency-Replayed"] == "true"


SEND = """
from tests.people import JSONClient

JSONClient().post("/api/content", {body!r}, HTTP_HOST="localhost", HTTP_X_API_KEY={key!r}, HTTP_IDEMPOTENCY_KEY="key-1")
"""


def kill(person: Person, target: str, moment: str) -> None:
    crash.kill_at(target, moment, SEND.format(body=BODY, key=person.credentials["HTTP_X_API_KEY"]))


@pytest.mark.parametrize(
    ("target", "moment"),
    [
        ("content.operations.create_content", "before"),  # the key is claimed
        ("engarde.common.idempotency.Claim.keep", "after"),  # all is written, nothing committed
    ],
)
def test_killed_before_its_commit_it_leaves_a_key_that_works_again_later(
    alice: Person, target: str, moment: str
) -> None:
    kill(alice, target, moment)

    refused(post(alice), 409, "idempotency_in_progress")
    assert items(alice) == 0
    _age(alice, timedelta(minutes=10, seconds=1))
    assert post(alice).status_code == 201
    assert items(alice) == 1


def test_killed_after_its_commit_it_leaves_its_answer(alice: Person) -> None:
    kill(alice, "content.operations.create_content", "after")

    answer = post(alice)

    assert (answer.status_code, answer["Idempotency-Replayed"]) == (201, "true")
    assert ok(alice.api.get(answer["Location"])) == answer.json()
    assert items(alice) == 1


def test_a_kept_answer_is_read_back_by_the_next_claim(alice: Person) -> None:
    post(alice)

    kept = idempotency.claim(
        tenant_id=alice.tenant_id, key="key-1", fingerprint=None, now=datetime.now(tz=timezone.get_current_timezone())
    )

    assert isinstance(kept, Kept)
    assert (kept.status, set(kept.headers)) == (201, {"Location", "ETag"})
    with pytest.raises(idempotency.Mismatch):
        idempotency.require_same(kept, b"another")


def test_a_key_with_another_body_is_a_mismatch_also_when_that_body_is_bad(alice: Person) -> None:
    good = alice.api.post("/api/content", {"title": "t", "type": "post"}, HTTP_IDEMPOTENCY_KEY="once")
    bad = alice.api.post("/api/content", {"title": ""}, HTTP_IDEMPOTENCY_KEY="once")
    assert (good.status_code, bad.status_code) == (201, 422)
