"""HTTP envelopes: parse, one call, answer."""

from typing import Any, ClassVar
from uuid import UUID

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.request import Request
from rest_framework.response import Response

from content.views import IDEMPOTENCY_KEY, replayed
from engarde.accounts.principal import caller
from engarde.accounts.roles import Scope
from engarde.common import idempotency
from engarde.common.fields import NoQuery, parse
from engarde.common.paging import PageQuery
from engarde.common.problems import NotFound
from generation import keys, operations, queries, serializers, single
from generation.models import Job, Provider
from quotas.views import QuotaView

READS = (Scope.CONTENT_READ, Scope.GENERATE)
USES_KEYS = (Scope.GENERATE, Scope.ADMIN)


class KeysView(QuotaView):
    """The tenant's provider keys: who may use them sees them, who may manage them changes them."""

    scopes: ClassVar = {"GET": USES_KEYS, "POST": Scope.ADMIN}

    @extend_schema(operation_id="list_llm_keys", responses=serializers.KeysOutput)
    def get(self, request: Request) -> Response:
        """List the stored keys, without the keys."""
        NoQuery.parse(request)
        found = keys.list_keys(tenant_id=caller(request).require_tenant())
        return Response({"providers": [serializers.show_key(key) for key in found]})

    @extend_schema(operation_id="save_llm_key", request=serializers.KeyInput, responses={200: serializers.KeyOutput})
    def post(self, request: Request) -> Response:
        """Store a key in place of the one before; it is checked by one cheap call, and stored whatever that finds."""
        given = parse(serializers.KeyInput, request)
        key = keys.save_key(
            tenant_id=caller(request).require_tenant(),
            provider=Provider(given["provider"]),
            api_key=given["api_key"],
            actor_id=caller(request).id,
            now=timezone.now(),
        )
        return Response(serializers.show_key(key))


class KeyEventsView(QuotaView):
    """The audit trail of the tenant's provider keys."""

    scopes: ClassVar = {"GET": Scope.ADMIN}

    @extend_schema(operation_id="list_llm_key_events", parameters=[PageQuery], responses=serializers.KeyEventPage)
    def get(self, request: Request) -> Response:
        """List who did what to which key, newest first."""
        query = PageQuery.parse(request)
        tenant_id = caller(request).require_tenant()
        page = keys.list_events(tenant_id=tenant_id, page=query["page"], size=query["pageSize"])
        return Response(page.envelope([serializers.show_key_event(row) for row in page.rows]))


class KeyView(QuotaView):
    """One provider's key."""

    scopes: ClassVar = {"DELETE": Scope.ADMIN}

    @extend_schema(operation_id="delete_llm_key", responses={204: None})
    def delete(self, request: Request, provider: str) -> Response:
        """Remove the key; jobs that use it fail."""
        keys.delete_key(
            tenant_id=caller(request).require_tenant(),
            provider=provider_of(provider),
            actor_id=caller(request).id,
            now=timezone.now(),
        )
        return Response(status=204)


class VerifyKeyView(QuotaView):
    """A check of a provider's key."""

    scopes: ClassVar = {"POST": Scope.ADMIN}

    @extend_schema(operation_id="verify_llm_key", request=None, responses={200: serializers.KeyOutput})
    def post(self, request: Request, provider: str) -> Response:
        """Check the stored key again, by one cheap call of at most 5 s."""
        key = keys.verify_key(
            tenant_id=caller(request).require_tenant(),
            provider=provider_of(provider),
            actor_id=caller(request).id,
            now=timezone.now(),
        )
        return Response(serializers.show_key(key))


def provider_of(name: str) -> Provider:
    """Return the provider that an address names.

    Raises:
        NotFound: there is none of that name.
    """
    if name not in Provider.values:
        raise NotFound("provider")
    return Provider(name)


class GenerateView(QuotaView):
    """Texts that somebody waits for."""

    scopes: ClassVar = {"POST": Scope.GENERATE}

    @extend_schema(
        operation_id="generate_content",
        parameters=[IDEMPOTENCY_KEY],
        request=serializers.GenerateInput,
        responses={200: serializers.GenerateOutput},
    )
    def post(self, request: Request) -> Response:
        """Write one to five variants, and store them as drafts if asked to."""
        tenant_id, now = caller(request).require_tenant(), timezone.now()
        given = parse(serializers.GenerateInput, request)
        fingerprint = idempotency.fingerprint_of("POST", request.path_info, request.data)
        key = idempotency.key_of(request)
        with idempotency.attempt(tenant_id=tenant_id, key=key, fingerprint=fingerprint, now=now) as attempt:
            if attempt.kept:
                return replayed(attempt.kept)
            done = single.generate(
                tenant_id=tenant_id,
                author_id=caller(request).id,
                request=serializers.GenerateInput.request_of(given),
                now=now,
                last=lambda done: attempt.keep(status=200, headers={}, body=serializers.show_generated(done)),
            )
        return Response(serializers.show_generated(done))


class BatchView(QuotaView):
    """A job of up to 10,000 texts."""

    scopes: ClassVar = {"POST": Scope.GENERATE}

    @extend_schema(
        operation_id="generate_batch",
        parameters=[IDEMPOTENCY_KEY],
        request=serializers.BatchInput,
        responses={202: serializers.BatchOutput},
    )
    def post(self, request: Request) -> Response:
        """Queue a job; template, model, key, quota and cost are checked before the answer."""
        tenant_id, now = caller(request).require_tenant(), timezone.now()
        given = parse(serializers.BatchInput, request)
        fingerprint = idempotency.fingerprint_of("POST", request.path_info, request.data)
        key = idempotency.key_of(request)
        with idempotency.attempt(tenant_id=tenant_id, key=key, fingerprint=fingerprint, now=now) as attempt:
            if attempt.kept:
                return replayed(attempt.kept)
            started = operations.start_batch(
                tenant_id=tenant_id,
                created_by=caller(request).id,
                request=serializers.BatchInput.request_of(given),
                now=now,
                last=lambda one: attempt.keep(status=202, headers=_queued(one.job), body=serializers.show_started(one)),
            )
        return Response(serializers.show_started(started), status=202, headers=_queued(started.job))


def _queued(job: Job) -> dict[str, str]:
    return {"Location": f"/api/content/generation-jobs/{job.id}"}


class JobsView(QuotaView):
    """The tenant's jobs."""

    scopes: ClassVar = {"GET": READS}

    @extend_schema(
        operation_id="list_generation_jobs", parameters=[serializers.JobQuery], responses=serializers.JobPage
    )
    def get(self, request: Request) -> Response:
        """List jobs, newest first."""
        arguments = serializers.JobQuery.arguments(request)
        page = queries.list_jobs(tenant_id=caller(request).require_tenant(), **arguments)
        now = timezone.now()
        return Response(page.envelope([serializers.show_summary(job, now) for job in page.rows]))


class JobView(QuotaView):
    """One job."""

    scopes: ClassVar = {"GET": READS, "DELETE": Scope.GENERATE}

    @extend_schema(operation_id="get_generation_job", responses=serializers.JobOutput)
    def get(self, request: Request, job_id: UUID) -> Response:
        """Return a job; its progress also comes over the WebSocket /ws/generation-jobs/{id}."""
        NoQuery.parse(request)
        view = queries.view_job(tenant_id=caller(request).require_tenant(), job_id=job_id)
        return Response(serializers.show_job(view, timezone.now()))

    @extend_schema(operation_id="cancel_generation_job", responses={200: serializers.JobOutput})
    def delete(self, request: Request, job_id: UUID) -> Response:
        """Cancel a job; what was generated stays."""
        return answer(operations.cancel_job(tenant_id=caller(request).require_tenant(), job_id=job_id))


def answer(job: Job, status: int = 200) -> Response:
    """Return a job that was changed."""
    return Response(serializers.show_job(queries.view_of(job), timezone.now()), status=status)


class ResumeJobView(QuotaView):
    """A paused job."""

    scopes: ClassVar = {"POST": Scope.GENERATE}

    @extend_schema(
        operation_id="resume_generation_job", request=serializers.GoOnInput, responses={202: serializers.JobOutput}
    )
    def post(self, request: Request, job_id: UUID) -> Response:
        """Let a paused job go on, under another cost cap if one is given."""
        return answer(operations.resume_job(**_go_on(request, job_id)), 202)


class RetryJobView(QuotaView):
    """A job with failed items."""

    scopes: ClassVar = {"POST": Scope.GENERATE}

    @extend_schema(
        operation_id="retry_generation_job", request=serializers.GoOnInput, responses={202: serializers.JobOutput}
    )
    def post(self, request: Request, job_id: UUID) -> Response:
        """Try the failed items again, and no others."""
        return answer(operations.retry_job(**_go_on(request, job_id)), 202)


def _go_on(request: Request, job_id: UUID) -> dict[str, Any]:
    given = parse(serializers.GoOnInput, request)
    return {
        "tenant_id": caller(request).require_tenant(),
        "job_id": job_id,
        "max_cost_usd": given.get("max_cost_usd"),
        "now": timezone.now(),
    }


class JobItemsView(QuotaView):
    """A job's items."""

    scopes: ClassVar = {"GET": READS}

    @extend_schema(
        operation_id="list_generation_job_items",
        parameters=[serializers.JobItemQuery],
        responses=serializers.JobItemPage,
    )
    def get(self, request: Request, job_id: UUID) -> Response:
        """List a job's items, by index."""
        arguments = serializers.JobItemQuery.arguments(request)
        job, page = queries.list_items(tenant_id=caller(request).require_tenant(), job_id=job_id, **arguments)
        has_price = job.input_price is not None
        return Response(page.envelope([serializers.show_item(item, has_price=has_price) for item in page.rows]))
