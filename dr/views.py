"""HTTP envelopes of the staff's calls: parse, one call, answer."""

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework.permissions import SAFE_METHODS
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from dr import figures, queries, serializers, states
from engarde.accounts.permissions import IsStaff
from engarde.accounts.principal import caller
from engarde.common.fields import NoQuery

ACCEPTED = {202: serializers.BackupActionOutput}


class StaffView(APIView):
    """A call for the platform's staff alone."""

    permission_classes = (IsStaff,)

    def initial(self, request: Request, *args: object, **kwargs: object) -> None:
        """Refuse a query that the method does not take; reads parse their own.

        Raises:
            ValidationError: naming each parameter.
        """
        super().initial(request, *args, **kwargs)
        if request.method not in SAFE_METHODS:
            NoQuery.parse(request)


class HealthView(StaffView):
    """The backup's state, for monitors."""

    @extend_schema(
        operation_id="get_backup_health",
        responses={200: serializers.BackupHealthOutput, 503: serializers.BackupHealthOutput},
    )
    def get(self, request: Request) -> Response:
        """Return the state: 503 when it fails, or when anything is not backed up past the target."""
        NoQuery.parse(request)
        health = states.current(now=timezone.now())
        return Response(serializers.show_health(health), status=states.http_status(health))


class MetricsView(StaffView):
    """What the backup did."""

    @extend_schema(
        operation_id="get_backup_metrics",
        parameters=[serializers.BackupMetricsQuery],
        responses=serializers.BackupMetricsOutput,
    )
    def get(self, request: Request) -> Response:
        """Return counters and the observed RPO, since the start and per day (UTC)."""
        days = serializers.BackupMetricsQuery.parse(request)["days"]
        return Response(serializers.show_metrics(figures.summary(now=timezone.now(), days=days)))


class RunsView(StaffView):
    """The log of runs."""

    @extend_schema(
        operation_id="list_backup_runs",
        parameters=[serializers.BackupListQuery],
        responses=serializers.BackupRunPage,
    )
    def get(self, request: Request) -> Response:
        """List runs that shipped something, failed or changed the state, newest first."""
        page = queries.list_runs(**serializers.BackupListQuery.arguments(request))
        return Response(page.envelope([serializers.show_run(row) for row in page.rows]))


class FindingsView(StaffView):
    """What verifications found."""

    @extend_schema(
        operation_id="list_backup_findings",
        parameters=[serializers.FindingQuery],
        responses=serializers.BackupFindingPage,
    )
    def get(self, request: Request) -> Response:
        """List findings, newest first; open ones are those that nobody has mended."""
        page = queries.list_findings(**serializers.FindingQuery.arguments(request))
        return Response(page.envelope([serializers.show_finding(row) for row in page.rows]))


class VerificationsView(StaffView):
    """Verifications."""

    @extend_schema(
        operation_id="list_backup_verifications",
        parameters=[serializers.BackupListQuery],
        responses=serializers.BackupVerificationPage,
    )
    def get(self, request: Request) -> Response:
        """List verifications, newest first."""
        page = queries.list_verifications(**serializers.BackupListQuery.arguments(request))
        return Response(page.envelope([serializers.show_verification(row) for row in page.rows]))


class DrillsView(StaffView):
    """Drills."""

    @extend_schema(
        operation_id="list_backup_drills",
        parameters=[serializers.BackupListQuery],
        responses=serializers.BackupDrillPage,
    )
    def get(self, request: Request) -> Response:
        """List drills and what they measured, newest first."""
        page = queries.list_drills(**serializers.BackupListQuery.arguments(request))
        return Response(page.envelope([serializers.show_drill(row) for row in page.rows]))


class RestoresView(StaffView):
    """Restores."""

    @extend_schema(
        operation_id="list_backup_restores",
        parameters=[serializers.BackupListQuery],
        responses=serializers.BackupRestorePage,
    )
    def get(self, request: Request) -> Response:
        """List restores and their reports, newest first."""
        page = queries.list_restores(**serializers.BackupListQuery.arguments(request))
        return Response(page.envelope([serializers.show_restore(row) for row in page.rows]))


class TriggerView(StaffView):
    """A run now."""

    @extend_schema(operation_id="trigger_backup", request=None, responses=ACCEPTED)
    def post(self, request: Request) -> Response:
        """Have the backup run now; if access was refused, it is asked for again. 409 while it is paused."""
        now = timezone.now()
        states.trigger(now=now)
        return _accepted(changed=True, detail="The backup runs now.")


class PauseView(StaffView):
    """A pause."""

    @extend_schema(operation_id="pause_backup", request=None, responses=ACCEPTED)
    def post(self, request: Request) -> Response:
        """Stop the backup until it is resumed; what is written meanwhile waits."""
        changed = states.pause(by=caller(request).id, now=timezone.now())
        return _accepted(changed=changed, detail="The backup is paused." if changed else "It was paused already.")


class ResumeView(StaffView):
    """The end of a pause."""

    @extend_schema(operation_id="resume_backup", request=None, responses=ACCEPTED)
    def post(self, request: Request) -> Response:
        """Let the backup go on; it runs at once."""
        changed = states.resume(now=timezone.now())
        return _accepted(changed=changed, detail="The backup goes on." if changed else "It was not paused.")


def _accepted(*, changed: bool, detail: str) -> Response:
    status = states.current(now=timezone.now()).status
    return Response({"status": status, "changed": changed, "detail": detail}, status=202)
