"""What the staff's calls take and answer with."""

from typing import Any

from rest_framework import serializers

from dr.figures import Day, Figures, Summary
from dr.models import Drill, Finding, Restore, Run, Verification
from dr.states import COUNTED, BackupHealth, BackupStatus
from engarde.common import cursors
from engarde.common.fields import QueryIntegerField, QuerySerializer, TextField
from engarde.common.paging import DEFAULT_PAGE_SIZE, MAX_PAGE, MAX_PAGE_SIZE, PaginationOutput

MOST_DAYS = 366


class BackupListQuery(QuerySerializer):
    """A page by number or by cursor."""

    page = QueryIntegerField(min_value=1, max_value=MAX_PAGE, required=False, help_text="From 1; not with a cursor.")
    pageSize = QueryIntegerField(min_value=1, max_value=MAX_PAGE_SIZE, default=DEFAULT_PAGE_SIZE)
    cursor = TextField(required=False, max_length=cursors.LONGEST)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse what contradicts itself."""
        if "cursor" in attrs and "page" in attrs:
            raise serializers.ValidationError({"page": "Give a page or a cursor, not both."})
        return attrs

    @classmethod
    def arguments(cls, request: Any) -> dict[str, Any]:
        """Return page, size and cursor as reads take them."""
        query = cls.parse(request)
        cursor = query.get("cursor")
        return {"page": None if cursor else query.get("page", 1), "size": query["pageSize"], "cursor": cursor}


class FindingQuery(BackupListQuery):
    """A page of findings: all, or with `open` those that are open, or those that are not."""

    open = serializers.ChoiceField(choices=["true", "false"], required=False)

    @classmethod
    def arguments(cls, request: Any) -> dict[str, Any]:
        """Return page, size, cursor and filter as reads take them."""
        is_open = cls.parse(request).get("open")
        return super().arguments(request) | {"is_open": None if is_open is None else is_open == "true"}


class BackupMetricsQuery(QuerySerializer):
    """For how many days, today included."""

    days = QueryIntegerField(min_value=1, max_value=MOST_DAYS, default=30)


class BackupHealthOutput(serializers.Serializer[Any]):
    """How the backup is."""

    status = serializers.ChoiceField(choices=BackupStatus.choices)
    reason = serializers.CharField(allow_null=True, help_text="Why; null while it is healthy.")
    lag_seconds = serializers.FloatField(help_text="Age of the oldest change that BigQuery has not acknowledged.")
    backlog = serializers.IntegerField(help_text=f"Such changes; {COUNTED:,} stands for that many or more.")
    last_success_at = serializers.DateTimeField(allow_null=True)
    rpo_target_seconds = serializers.IntegerField()
    set_aside = serializers.IntegerField(help_text="Batches that cannot be shipped and are tried once a day.")
    paused_at = serializers.DateTimeField(allow_null=True)


class BackupFiguresOutput(serializers.Serializer[Any]):
    """What the backup did."""

    rows = serializers.IntegerField(help_text="Changes that BigQuery acknowledged.")
    bytes = serializers.IntegerField()
    batches = serializers.IntegerField()
    loads = serializers.IntegerField(help_text="Load jobs.")
    retries = serializers.IntegerField(help_text="Batches that had been tried before.")
    failures = serializers.IntegerField()
    seconds = serializers.FloatField(help_text="Spent shipping, by all workers together.")
    rpo_p50_seconds = serializers.FloatField(
        allow_null=True, help_text="From change to acknowledgement; null: no rows."
    )
    rpo_p99_seconds = serializers.FloatField(allow_null=True)
    rpo_max_seconds = serializers.FloatField(allow_null=True)


class BackupDayOutput(BackupFiguresOutput):
    """What it did on a day (UTC)."""

    date = serializers.DateField()


class BackupMetricsOutput(serializers.Serializer[Any]):
    """Counters since the backup began, and a row a day, oldest first, days without work too."""

    since = serializers.DateField(allow_null=True, help_text="The first day that is kept by itself.")
    since_start = BackupFiguresOutput()
    per_day = BackupDayOutput(many=True)


class BackupActionOutput(serializers.Serializer[Any]):
    """What came of a call."""

    status = serializers.ChoiceField(choices=BackupStatus.choices, help_text="The backup's state after it.")
    changed = serializers.BooleanField(help_text="False when it was so already.")
    detail = serializers.CharField()


class BackupRunOutput(serializers.Serializer[Any]):
    """A run that shipped something, failed, or changed the state."""

    id = serializers.UUIDField()
    started_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    status = serializers.CharField()
    reason = serializers.CharField(allow_null=True)
    sealed = serializers.IntegerField(help_text="Batches sealed.")
    batches = serializers.IntegerField(help_text="Batches shipped.")
    loads = serializers.IntegerField(help_text="Load jobs among what shipped them.")
    rows = serializers.IntegerField()
    bytes = serializers.IntegerField()
    retries = serializers.IntegerField()
    failures = serializers.IntegerField()
    backlog = serializers.IntegerField(help_text="Changes that were left.")
    lag_seconds = serializers.FloatField(help_text="Age of the oldest change that was left.")
    seconds = serializers.FloatField(allow_null=True, help_text="How long it took.")


class BackupRunPage(serializers.Serializer[Any]):
    """A page of runs."""

    data = BackupRunOutput(many=True)  # type: ignore[assignment]  # the contract's name; DRF has an attribute of it
    pagination = PaginationOutput()


class BackupFindingOutput(serializers.Serializer[Any]):
    """One fault that a verification found; tenant zero stands for what belongs to the platform."""

    id = serializers.UUIDField()
    verification_id = serializers.UUIDField()
    tenant_id = serializers.UUIDField()
    entity_type = serializers.CharField()
    entity_id = serializers.UUIDField()
    version = serializers.IntegerField()
    tier = serializers.ChoiceField(choices=Finding.Tier.choices)
    kind = serializers.ChoiceField(choices=Finding.Kind.choices)
    problem = serializers.CharField()
    found_at = serializers.DateTimeField()
    repaired_at = serializers.DateTimeField(allow_null=True)


class BackupFindingPage(serializers.Serializer[Any]):
    """A page of findings."""

    data = BackupFindingOutput(many=True)  # type: ignore[assignment]  # the contract's name; DRF has an attribute of it
    pagination = PaginationOutput()


class BackupVerificationOutput(serializers.Serializer[Any]):
    """A comparison of the tiers."""

    id = serializers.UUIDField()
    tenant_id = serializers.UUIDField(allow_null=True, help_text="Null for all.")
    deep = serializers.BooleanField()
    repair = serializers.BooleanField()
    started_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    checked = serializers.IntegerField()
    mismatched = serializers.IntegerField()
    missing = serializers.IntegerField()
    extra = serializers.IntegerField()
    repaired = serializers.IntegerField()
    error = serializers.CharField(allow_null=True, help_text="Why it could not be carried through.")
    is_clean = serializers.BooleanField(help_text="Carried through, and nothing found.")


class BackupVerificationPage(serializers.Serializer[Any]):
    """A page of verifications."""

    data = BackupVerificationOutput(many=True)  # type: ignore[assignment]  # the contract's name, as above
    pagination = PaginationOutput()


class BackupDrillOutput(serializers.Serializer[Any]):
    """A disaster that was played through on throw-away data."""

    id = serializers.UUIDField()
    scenario = serializers.CharField()
    scheduled = serializers.BooleanField(help_text="By beat, of a sampled tenant's real backup.")
    tenant_id = serializers.UUIDField(allow_null=True)
    started_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    ok = serializers.BooleanField(allow_null=True)
    items = serializers.IntegerField()
    lost = serializers.IntegerField()
    mismatched = serializers.IntegerField()
    rto_seconds = serializers.FloatField(allow_null=True)
    rpo_seconds = serializers.FloatField(allow_null=True)


class BackupDrillPage(serializers.Serializer[Any]):
    """A page of drills."""

    data = BackupDrillOutput(many=True)  # type: ignore[assignment]  # the contract's name; DRF has an attribute of it
    pagination = PaginationOutput()


class BackupRestoreOutput(serializers.Serializer[Any]):
    """A restore, and its report once it ended."""

    id = serializers.UUIDField()
    tenant_id = serializers.UUIDField(allow_null=True, help_text="Null for all.")
    as_of = serializers.DateTimeField(allow_null=True, help_text="Null for the latest state.")
    tiers = serializers.ListField(child=serializers.CharField())
    dry_run = serializers.BooleanField()
    started_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField(allow_null=True)
    ok = serializers.BooleanField(allow_null=True)
    report = serializers.DictField()


class BackupRestorePage(serializers.Serializer[Any]):
    """A page of restores."""

    data = BackupRestoreOutput(many=True)  # type: ignore[assignment]  # the contract's name; DRF has an attribute of it
    pagination = PaginationOutput()


def show_health(health: BackupHealth) -> dict[str, Any]:
    """Return how the backup is."""
    return _shown(health, BackupHealthOutput) | {"reason": health.reason or None}


def show_metrics(found: Summary) -> dict[str, Any]:
    """Return counters since the start and per day."""
    return {
        "since": found.since,
        "since_start": _show_figures(found.total, BackupFiguresOutput),
        "per_day": [_show_figures(day, BackupDayOutput) for day in found.days],
    }


def _show_figures(found: Figures | Day, output: type[serializers.Serializer[Any]]) -> dict[str, Any]:
    return _shown(found, output) | {"seconds": round(found.seconds, 3)}


def show_run(run: Run) -> dict[str, Any]:
    """Return a run."""
    took = (run.finished_at - run.started_at).total_seconds() if run.finished_at else None
    return _shown(run, BackupRunOutput, "seconds") | {"reason": run.reason or None, "seconds": took}


def show_finding(finding: Finding) -> dict[str, Any]:
    """Return a finding."""
    return _shown(finding, BackupFindingOutput)


def show_verification(verification: Verification) -> dict[str, Any]:
    """Return a verification."""
    return _shown(verification, BackupVerificationOutput) | {"error": verification.error or None}


def show_drill(drill: Drill) -> dict[str, Any]:
    """Return a drill."""
    return _shown(drill, BackupDrillOutput)


def show_restore(restore: Restore) -> dict[str, Any]:
    """Return a restore."""
    return _shown(restore, BackupRestoreOutput)


def _shown(row: Any, output: type[serializers.Serializer[Any]], *others: str) -> dict[str, Any]:
    """Return what an answer documents of a row, but for what the row does not know."""
    return {name: getattr(row, name) for name in output._declared_fields if name not in others}
