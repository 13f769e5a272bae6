"""Jobs over the API: what is checked before the answer, how they end, and what can be done to them."""

from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from django.core import mail
from django.db import connection
from django.utils import timezone

from engarde.accounts import mailer
from engarde.common.scopes import system_scope, tenant_scope
from generation.models import Job, JobEvent, JobItem, LLMKey
from quotas import reservations
from quotas.models import Reservation
from tests.generation.house import ask_batch, items_of, job_of, new_studio, start, with_key, work
from tests.people import Person, logged_in, new_colleague, new_owner
from tests.providers import Provider

JOBS = "/api/content/generation-jobs"


def quota_of(person: Person) -> dict[str, Any]:
    found: dict[str, Any] = person.api.get("/api/content/quota").json()["usage"]
    return found


def answered(provider: Provider, status: int = 200) -> int:
    """Return how many calls of models were answered so."""
    return sum(call["path"].endswith("completions") and call["status"] == status for call in provider.calls())


def codes(answer: Any) -> dict[str, str]:
    assert answer.status_code == 400, answer.content
    return {error["field"]: error["code"] for error in answer.json()["errors"]}


# What is checked before the answer


def test_a_job_is_queued_with_estimates_and_holds_its_quota(studio: Person) -> None:
    answer = ask_batch(studio, 20)

    assert answer.status_code == 202
    body = answer.json()
    assert (body["status"], body["target_count"], body["progress"]) == ("pending", 20, 0)
    assert body["estimated_storage_bytes"] > 0
    assert Decimal(body["estimated_cost_usd"]) > 0
    assert body["quota_check"]["can_store"] is True
    assert answer.headers["Location"] == f"{JOBS}/{body['job_id']}"
    usage = quota_of(studio)
    assert (usage["reserved_bytes"], usage["reserved_generations"]) == (body["estimated_storage_bytes"], 20)
    assert usage["generated_this_month"] == 0


@pytest.mark.parametrize(
    ("params", "field", "code"),
    [
        ({"prompt_template": "About {subject}"}, "generation_params.prompt_template", "unknown_variable"),
        ({"prompt_template": "About {topic.title}"}, "generation_params.prompt_template", "invalid_template"),
        ({"prompt_template": "About {topic!r}"}, "generation_params.prompt_template", "invalid_template"),
        ({"prompt_template": "About {"}, "generation_params.prompt_template", "invalid_template"),
        ({"prompt_template": "About {}"}, "generation_params.prompt_template", "invalid_template"),
        ({"topics": []}, "generation_params.topics", "required"),
        ({"prompt_template": ""}, "generation_params.prompt_template", "blank"),
        ({"temperature": 3}, "generation_params.temperature", "max_value"),
        ({"unknown": 1}, "generation_params.unknown", "unknown_field"),
    ],
)
def test_what_cannot_be_written_is_refused_at_once(
    studio: Person, provider: Provider, params: dict[str, Any], field: str, code: str
) -> None:
    assert codes(ask_batch(studio, params=params)) == {field: code}
    assert not [call for call in provider.calls() if call["path"].endswith("completions")]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"content_type": "poem"}, "content_type"),
        ({"concurrency": 0}, "concurrency"),
        ({"concurrency": 201}, "concurrency"),
        ({"provider": "openbrain"}, "provider"),
        ({"max_tokens": 1}, "max_tokens"),
        ({"max_cost_usd": "-1"}, "max_cost_usd"),
        ({"max_cost_usd": True}, "max_cost_usd"),
        ({"max_cost_usd": "NaN"}, "max_cost_usd"),
        ({"max_cost_usd": "0.000001"}, "max_cost_usd"),
        ({"model": "gpt-of-tomorrow"}, "model"),
        ({"brand_id": "01a214c2-3661-7074-ad17-b348ecd394d9"}, "brand_id"),
        ({"platforms": "linkedin"}, "platforms"),
        ({"notify": "yes"}, "notify"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_bad_input_names_its_field(studio: Person, fields: dict[str, Any], field: str) -> None:
    assert set(codes(ask_batch(studio, **fields))) == {field}


@pytest.mark.parametrize("count", [0, 10_001, -1, "3", 1.5, None])
def test_a_job_has_1_to_10000_items(studio: Person, count: Any) -> None:
    assert set(codes(ask_batch(studio, count))) == {"target_count"}


def test_without_a_key_nothing_starts(database: None, provider: Provider) -> None:
    bare = new_owner("bare", tier="professional")

    answer = ask_batch(bare, provider="openai")

    assert (answer.status_code, answer.json()["code"]) == (409, "llm_key_missing")
    assert job_count(bare) == 0


def test_a_key_that_the_provider_refuses_is_found_out_before_the_answer(studio: Person, provider: Provider) -> None:
    provider.behave(keys={"sk-other-0123456789": "revoked"})
    with_key(studio, key="sk-other-0123456789")
    unchecked = LLMKey.objects.filter(tenant_id=studio.tenant_id)
    with tenant_scope(studio.tenant_id):
        unchecked.update(status="unchecked")

    answer = ask_batch(studio)

    assert (answer.status_code, answer.json()["code"]) == (409, "llm_key_invalid")
    assert studio.api.get("/api/llm-keys").json()["providers"][0]["status"] == "invalid"
    assert job_count(studio) == 0


def test_a_job_beyond_the_month_is_refused_whole(database: None, provider: Provider) -> None:
    small = new_studio("small", tier="free")

    answer = ask_batch(small, 101)

    assert (answer.status_code, answer.json()["code"]) == (403, "generation_quota_exceeded")
    assert job_count(small) == 0
    assert quota_of(small)["reserved_generations"] == 0


def test_a_job_beyond_the_storage_is_refused_whole(database: None, provider: Provider) -> None:
    small = new_studio("small", storage_limit=5000)

    answer = ask_batch(small, 100)

    assert (answer.status_code, answer.json()["code"]) == (403, "storage_quota_exceeded")
    assert job_count(small) == 0


def test_a_cost_cap_needs_a_price(studio: Person, provider: Provider) -> None:
    provider.behave(models=None)
    with_key(studio, "qwen", "sk-qwen-0123456789")

    answer = ask_batch(studio, provider="qwen", model="gpt-test", max_cost_usd="1")

    assert codes(answer) == {"max_cost_usd": "price_unknown"}


def test_an_idempotency_key_queues_one_job(studio: Person) -> None:
    body = {
        "content_type": "post",
        "target_count": 2,
        "generation_params": {"prompt_template": "Write about {topic}.", "topics": ["apples"]},
    }
    first = studio.api.post("/api/content/generate-batch", body, HTTP_IDEMPOTENCY_KEY="once")
    again = studio.api.post("/api/content/generate-batch", body, HTTP_IDEMPOTENCY_KEY="once")
    other = studio.api.post("/api/content/generate-batch", {**body, "target_count": 3}, HTTP_IDEMPOTENCY_KEY="once")

    assert first.status_code == again.status_code == 202
    assert first.json() == again.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    assert other.status_code == 422
    assert job_count(studio) == 1


def test_a_tenant_has_a_bounded_number_of_unfinished_jobs(studio: Person, settings: Any) -> None:
    settings.GENERATION_UNFINISHED_JOBS_PER_TENANT = 2
    first = start(studio, 1)
    start(studio, 1)

    assert ask_batch(studio, 1).json()["code"] == "too_many_jobs"

    studio.api.delete(f"{JOBS}/{first}")
    assert ask_batch(studio, 1).status_code == 202


def job_count(person: Person) -> int:
    return int(person.api.get(JOBS).json()["pagination"]["total"])


# How jobs run and end


def test_a_job_stores_each_item_once_and_counts_it(studio: Person, provider: Provider) -> None:
    job_id = start(studio, 25, concurrency=20, platforms=["linkedin"], tags=["autumn"])

    work(studio, job_id, workers=2)

    job, items = job_of(studio, job_id), items_of(studio, job_id)
    assert (job["status"], job["progress"], job["failed"], job["progress_percent"]) == ("completed", 25, 0, 100.0)
    assert [item["index"] for item in items] == list(range(25))
    assert {item["status"] for item in items} == {"completed"}
    assert job["generated_content_ids"] == [item["content_id"] for item in items]
    assert len(set(job["generated_content_ids"])) == 25
    assert_sums(studio, job_id)
    content = studio.api.get(f"/api/content/{items[3]['content_id']}").json()
    assert content["status"] == "draft"
    assert content["platforms"] == ["linkedin"]
    assert content["tags"] == ["autumn"]
    assert content["ai_generation"]["job_id"] == str(job_id)
    assert content["ai_generation"]["prompt"] == "Write about pears."
    assert answered(provider) == 25


def test_topics_repeat_in_turn(studio: Person) -> None:
    job_id = start(studio, 5, params={"topics": ["a", "b", "c"]})

    work(studio, job_id)

    ids = job_of(studio, job_id)["generated_content_ids"]
    prompts = [studio.api.get(f"/api/content/{one}").json()["ai_generation"]["prompt"] for one in ids]
    assert prompts == [f"Write about {topic}." for topic in "abcab"]


def test_one_failing_item_sinks_no_other(studio: Person, provider: Provider) -> None:
    provider.behave(faults={"refusal": 0.3}, seed=4)
    job_id = start(studio, 20, concurrency=10)

    work(studio, job_id)

    job = job_of(studio, job_id)
    assert job["status"] == "completed_with_errors"
    assert job["progress"] + job["failed"] == 20
    assert job["errors"] == {"content_refused": job["failed"]}
    assert job["failed"] > 0
    failed = items_of(studio, job_id, status="failed")
    assert len(failed) == job["failed"]
    assert all(item["attempts"] == 1 and item["error"] and item["content_id"] is None for item in failed)
    assert_sums(studio, job_id)


def test_a_job_in_which_everything_fails_has_failed(studio: Person, provider: Provider) -> None:
    provider.behave(faults={"refusal": 1.0})
    job_id = start(studio, 3)

    work(studio, job_id)

    job = job_of(studio, job_id)
    assert (job["status"], job["failed"], job["error_code"]) == ("failed", 3, "all_items_failed")
    assert job["completed_at"]
    assert_sums(studio, job_id)


def test_server_errors_are_tried_again_and_count_as_tries(studio: Person, provider: Provider, settings: Any) -> None:
    settings.GENERATION_RETRY_SECONDS = 0.01
    provider.behave(faults={"server_error": 0.5}, seed=2)
    job_id = start(studio, 12)

    work(studio, job_id)

    job = job_of(studio, job_id)
    assert job["progress"] + job["failed"] == 12
    assert max(item["attempts"] for item in items_of(studio, job_id)) > 1
    assert_sums(studio, job_id)


def test_an_item_is_tried_at_most_five_times(studio: Person, provider: Provider, settings: Any) -> None:
    settings.GENERATION_RETRY_SECONDS = 0.01
    provider.behave(faults={"server_error": 1.0})
    job_id = start(studio, 2)

    work(studio, job_id)

    assert {item["attempts"] for item in items_of(studio, job_id)} == {5}
    assert {item["error_code"] for item in items_of(studio, job_id)} == {"llm_unavailable"}
    assert answered(provider, 500) == 10


def test_refusals_for_the_pace_cost_no_try(studio: Person, provider: Provider) -> None:
    provider.behave(rate=40, burst=4, retry_after=None)
    job_id = start(studio, 30, concurrency=10)

    work(studio, job_id)

    job = job_of(studio, job_id)
    assert (job["status"], job["progress"]) == ("completed", 30)
    assert {item["attempts"] for item in items_of(studio, job_id)} == {1}
    assert answered(provider, 429) > 0


def test_retry_after_is_obeyed(studio: Person, provider: Provider) -> None:
    provider.behave(rate=4, burst=2, retry_after=1)
    job_id = start(studio, 8, concurrency=8)

    work(studio, job_id)

    calls = [call for call in provider.calls() if call["path"].endswith("completions")]
    refused = min(call["done_at"] for call in calls if call["status"] == 429)
    later = [call["at"] for call in calls if call["at"] > refused + 0.1]
    assert min(later) - refused > 0.9
    assert job_of(studio, job_id)["progress"] == 8


def test_a_refused_key_ends_the_job_and_is_noted(studio: Person, provider: Provider) -> None:
    job_id = start(studio, 30, concurrency=2)
    provider.behave(keys={"sk-test-0123456789abcdef": "revoked"})

    work(studio, job_id)

    job = job_of(studio, job_id)
    assert (job["status"], job["error_code"], job["failed"]) == ("failed", "llm_key_invalid", 30)
    assert "key" in job["error_message"]
    assert studio.api.get("/api/llm-keys").json()["providers"][0]["status"] == "invalid"
    assert answered(provider, 401) <= 3
    assert quota_of(studio)["reserved_generations"] == 0
    assert_sums(studio, job_id)


def test_a_key_that_was_removed_ends_the_job(studio: Person) -> None:
    job_id = start(studio, 2)
    studio.api.delete("/api/llm-keys/openai")

    work(studio, job_id)

    assert (job_of(studio, job_id)["status"], job_of(studio, job_id)["error_code"]) == ("failed", "llm_key_missing")


def test_an_account_without_credit_pauses_the_job(studio: Person, provider: Provider) -> None:
    job_id = start(studio, 10, concurrency=2)
    provider.behave(keys={"sk-test-0123456789abcdef": "no_credit"})

    work(studio, job_id)

    job = job_of(studio, job_id)
    assert (job["status"], job["error_code"], job["failed"]) == ("paused", "llm_no_credit", 0)
    assert studio.api.get("/api/llm-keys").json()["providers"][0]["status"] == "no_credit"

    provider.behave()
    assert studio.api.post(f"{JOBS}/{job_id}/resume").status_code == 202
    work(studio, job_id)
    assert job_of(studio, job_id)["status"] == "completed"


def test_nothing_but_refusals_for_long_pauses_the_job(studio: Person, provider: Provider, settings: Any) -> None:
    settings.GENERATION_PAUSE_AFTER_429_SECONDS = 1
    provider.behave(faults={"rate_limit_silent": 1.0})
    job_id = start(studio, 3)

    work(studio, job_id)
    work(studio, job_id)

    job = job_of(studio, job_id)
    assert (job["status"], job["error_code"]) == ("paused", "llm_rate_limited")
    assert {item["attempts"] for item in items_of(studio, job_id)} == {0}


def test_unusable_answers_are_asked_again_once(studio: Person, provider: Provider) -> None:
    provider.behave(faults={"invalid_json": 1.0})
    job_id = start(studio, 2)

    work(studio, job_id)

    assert job_of(studio, job_id)["errors"] == {"invalid_output": 2}
    assert answered(provider) == 4
    assert job_of(studio, job_id)["input_tokens"] > 0
    assert_sums(studio, job_id)


def test_a_tenant_that_fills_up_meanwhile_has_its_job_paused(database: None, provider: Provider) -> None:
    full = new_studio("full", storage_limit=30_000)
    job_id = start(full, 3, content_type="tweet")
    provider.behave(body_characters=12_000)

    work(full, job_id)

    job = job_of(full, job_id)
    assert (job["status"], job["error_code"], job["progress"]) == ("paused", "storage_quota_exceeded", 2)
    assert quota_of(full)["total_storage_bytes"] <= 30_000
    assert_sums(full, job_id)


# Cost caps


def test_a_cost_cap_is_never_gone_over(studio: Person, provider: Provider) -> None:
    job_id = start(studio, 50, concurrency=20, max_tokens=200, max_cost_usd="0.02")

    work(studio, job_id, workers=2)

    job = job_of(studio, job_id)
    assert (job["status"], job["error_code"]) == ("paused", "cost_cap_reached")
    assert 0 < job["progress"] < 50
    assert Decimal(job["total_cost_usd"]) <= Decimal("0.02")
    assert_sums(studio, job_id)

    refused = studio.api.post(f"{JOBS}/{job_id}/resume")
    assert (refused.status_code, refused.json()["code"]) == (409, "cost_cap_reached")
    assert studio.api.post(f"{JOBS}/{job_id}/resume", {"max_cost_usd": "5"}).status_code == 202
    work(studio, job_id)
    assert job_of(studio, job_id)["status"] == "completed"


# Cancel, resume, retry


def test_cancel_keeps_what_is_there_and_gives_the_rest_back(studio: Person, provider: Provider) -> None:
    job_id = start(studio, 40, max_tokens=200, max_cost_usd="0.02", concurrency=5)
    work(studio, job_id)
    stored = job_of(studio, job_id)["progress"]
    studio.api.post(f"{JOBS}/{job_id}/resume", {"max_cost_usd": "9"})
    calls = len(provider.calls())

    answer = studio.api.delete(f"{JOBS}/{job_id}")
    work(studio, job_id)

    assert (answer.status_code, answer.json()["status"], answer.json()["progress"]) == (200, "cancelled", stored)
    assert len(provider.calls()) <= calls + 1  # the look at the models when it was resumed
    assert {item["status"] for item in items_of(studio, job_id)} == {"completed", "cancelled"}
    assert quota_of(studio)["reserved_bytes"] == quota_of(studio)["reserved_generations"] == 0
    assert studio.api.delete(f"{JOBS}/{job_id}").json()["code"] == "job_finished"
    assert_sums(studio, job_id)


def test_retry_runs_the_failed_items_and_no_others(studio: Person, provider: Provider) -> None:
    provider.behave(faults={"refusal": 0.4}, seed=3)
    job_id = start(studio, 15, concurrency=5)
    work(studio, job_id)
    before, stored = job_of(studio, job_id), job_of(studio, job_id)["generated_content_ids"]
    provider.behave()
    provider.forget()

    answer = studio.api.post(f"{JOBS}/{job_id}/retry")
    work(studio, job_id)

    assert (answer.status_code, answer.json()["status"]) == (202, "pending")
    assert answer.json()["failed"] == 0
    job = job_of(studio, job_id)
    assert (job["status"], job["progress"]) == ("completed", 15)
    assert set(stored) < set(job["generated_content_ids"])
    assert answered(provider) == before["failed"]
    assert_sums(studio, job_id)
    again = studio.api.post(f"{JOBS}/{job_id}/retry")
    assert (again.status_code, again.json()["code"]) == (409, "nothing_to_retry")


def test_acts_that_do_not_fit_the_state_are_conflicts(studio: Person) -> None:
    job_id = start(studio, 1)

    assert studio.api.post(f"{JOBS}/{job_id}/retry").json()["code"] == "job_not_finished"
    assert studio.api.post(f"{JOBS}/{job_id}/resume").json()["code"] == "job_not_paused"
    work(studio, job_id)
    assert studio.api.post(f"{JOBS}/{job_id}/resume").json()["code"] == "job_not_paused"
    assert studio.api.delete(f"{JOBS}/{job_id}").json()["code"] == "job_finished"


# Lists


def test_jobs_are_listed_newest_first_by_page_and_cursor(studio: Person) -> None:
    made = [str(start(studio, 1)) for _ in range(5)]

    page = studio.api.get(JOBS, {"pageSize": "2"}).json()
    rest = studio.api.get(JOBS, {"pageSize": "3", "cursor": page["pagination"]["nextCursor"]}).json()

    assert [row["job_id"] for row in page["data"] + rest["data"]] == made[::-1]
    assert page["pagination"]["total"] == 5
    assert rest["pagination"]["hasNext"] is False
    assert studio.api.get(JOBS, {"status": "completed"}).json()["data"] == []
    assert studio.api.get(JOBS, {"status": "sleeping"}).status_code == 400
    assert studio.api.get(JOBS, {"page": "1", "cursor": "x"}).status_code == 400
    assert studio.api.get(JOBS, {"cursor": "x"}).status_code == 400


def test_items_are_listed_in_order_and_by_status(studio: Person, provider: Provider) -> None:
    provider.behave(faults={"refusal": 0.5}, seed=1)
    job_id = start(studio, 30, concurrency=10)
    work(studio, job_id)

    first = studio.api.get(f"{JOBS}/{job_id}/items", {"pageSize": "12"}).json()
    second = studio.api.get(
        f"{JOBS}/{job_id}/items", {"pageSize": "100", "cursor": first["pagination"]["nextCursor"]}
    ).json()

    assert [item["index"] for item in first["data"] + second["data"]] == list(range(30))
    assert first["pagination"]["total"] == 30
    failed = studio.api.get(f"{JOBS}/{job_id}/items", {"status": "failed", "pageSize": "100"}).json()
    assert {item["status"] for item in failed["data"]} == {"failed"}


# Who is told


def test_the_person_who_started_it_gets_a_mail_and_webhooks_a_message(studio: Person) -> None:
    editor = new_colleague(studio, "editor")
    answer = ask_batch(logged_in(editor), 2)
    job_id = UUID(answer.json()["job_id"])
    mail.outbox.clear()

    work(studio, job_id)
    mailer.send_due(now=timezone.now())

    told = [message for message in mail.outbox if message.to == [editor.email]]
    assert len(told) == 1
    assert "all texts are there" in told[0].subject
    assert str(job_id) in told[0].body


def test_nobody_is_told_who_did_not_want_to_be(studio: Person) -> None:
    job_id = start(studio, 1, notify=False)
    mail.outbox.clear()

    work(studio, job_id)
    mailer.send_due(now=timezone.now())

    assert not [message for message in mail.outbox if str(job_id) in message.body]


def test_webhooks_are_told_of_the_end(studio: Person) -> None:
    with tenant_scope(studio.tenant_id), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO content_webhooks (id, tenant_id, url, description, events, secret, previous_secret, is_active,"
            " disabled_reason, failures_in_a_row) VALUES (gen_random_uuid(), %s, 'https://example.com', '',"
            " '{generation.completed}', 'x', '', true, '', 0)",
            [studio.tenant_id],
        )
    job_id = start(studio, 2)

    work(studio, job_id)

    with tenant_scope(studio.tenant_id), connection.cursor() as cursor:
        cursor.execute("SELECT event, data FROM content_webhook_deliveries WHERE tenant_id = %s", [studio.tenant_id])
        [(event, data)] = cursor.fetchall()
    assert event == "generation.completed"
    assert str(job_id) in str(data)


# Ten thousand


@pytest.mark.soak
def test_ten_thousand_items_are_queued_in_a_moment(database: None, provider: Provider) -> None:
    large = new_studio("large", tier="enterprise")
    topics = [f"topic {number} {'x' * 270}" for number in range(10_000)]
    begun = timezone.now()

    job_id = start(large, 10_000, params={"topics": topics}, concurrency=200)

    assert (timezone.now() - begun).total_seconds() < 5
    assert job_of(large, job_id)["target_count"] == 10_000
    assert large.api.delete(f"{JOBS}/{job_id}").status_code == 200
    assert {item["status"] for item in items_of(large, job_id)[:5]} == {"cancelled"}


# The sums


def assert_sums(person: Person, job_id: UUID) -> None:
    """Check that a job's counters, its items, its events, its contents and the quota say the same."""
    with system_scope("check the sums of a job"):
        job = Job.objects.get(id=job_id)
        items = list(JobItem.objects.filter(job_id=job_id))
        events = list(JobEvent.objects.filter(job_id=job_id).order_by("seq"))
        is_held = Reservation.objects.filter(id=job_id).exists()
    done = [item for item in items if item.status == "completed"]
    failed = [item for item in items if item.status == "failed"]
    assert (job.completed, job.failed) == (len(done), len(failed))
    assert job.cost_usd == sum((item.cost_usd for item in items), Decimal(0))
    assert job.input_tokens == sum(item.input_tokens for item in items)
    assert job.output_tokens == sum(item.output_tokens for item in items)
    assert [event.seq for event in events] == list(range(1, job.last_seq + 1))
    assert {event.content_id for event in events if event.content_id} == {item.content_id for item in done}
    assert is_held is (not job.is_finished)
    listed = contents_of(person, job_id)
    assert {UUID(one["id"]) for one in listed} == {item.content_id for item in done}
    assert job.stored_bytes == sum(one["storage"]["size_bytes"] for one in listed)
    usage = quota_of(person)
    assert usage["generated_this_month"] >= len(done)
    if job.is_finished and job_count(person) == 1:
        assert (usage["reserved_bytes"], usage["reserved_generations"]) == (0, 0)
        assert usage["generated_this_month"] == len(done)
        assert usage["total_storage_bytes"] == job.stored_bytes


def contents_of(person: Person, job_id: UUID) -> list[dict[str, Any]]:
    """Return all contents of a tenant that say that they are of a job."""
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        query: dict[str, str] = {"pageSize": "100", **({"cursor": cursor} if cursor else {})}
        page = person.api.get("/api/content", query).json()
        found += [one for one in page["data"] if (one["ai_generation"] or {}).get("job_id") == str(job_id)]
        cursor = page["pagination"]["nextCursor"]
        if not cursor:
            return found


def test_a_reservation_that_ran_out_is_made_anew(studio: Person) -> None:
    job_id = start(studio, 2)
    with tenant_scope(studio.tenant_id):
        Reservation.objects.filter(id=job_id).update(expires_at=timezone.now())
        reservations.release_expired(tenant_id=studio.tenant_id, now=timezone.now())

    work(studio, job_id)

    assert job_of(studio, job_id)["status"] == "completed"
    assert_sums(studio, job_id)


def test_hashtags_that_are_not_wanted_are_left_out(studio: Person) -> None:
    job_id = start(studio, 1, params={"include_hashtags": False})

    work(studio, job_id)

    [content_id] = job_of(studio, job_id)["generated_content_ids"]
    assert studio.api.get(f"/api/content/{content_id}").json()["hashtags"] == []
