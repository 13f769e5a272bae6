"""What the backup keeps of its own work: batches, its state, runs and figures, restores, findings, drills, erasures, copies of media."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from engarde.common.constraints import RowSecurity


class Batch(models.Model):
    """A sealed batch of changes: whoever ships it, however often, ships the same rows.

    Nothing joins it any more; only a change that cannot be shipped leaves it, for a batch of its own.

    `next_try_at` is both the backoff after a failure and the lease of a worker that ships it now; it lives here, so
    it survives the broker. Batches of one pack go in one load job, whose id the pack and its attempt make.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    rows = models.PositiveIntegerField()
    first_seq = models.BigIntegerField()
    last_seq = models.BigIntegerField()
    horizon = models.BigIntegerField(help_text="Every transaction below this one had ended when the batch was sealed.")
    oldest_at = models.DateTimeField(null=True, help_text="When its oldest change was made.")
    sealed_at = models.DateTimeField(db_default=Now())
    pack_id = models.UUIDField(null=True)
    pack_attempt = models.PositiveIntegerField(default=0, db_default=0)
    attempts = models.PositiveIntegerField(default=0)
    next_try_at = models.DateTimeField(db_default=Now())
    last_error = models.TextField(blank=True, default="")
    set_aside_at = models.DateTimeField(null=True, help_text="Since when it is only tried once a day.")
    bytes = models.BigIntegerField(null=True, help_text="Payload shipped.")
    lanes = ArrayField(models.BigIntegerField(), null=True, help_text="Sums of three parts of its rows' hashes.")
    acked_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "dr_batches"
        verbose_name_plural = "batches"
        indexes: ClassVar = [
            models.Index("next_try_at", name="batch_due", condition=Q(acked_at=None)),
            models.Index("pack_id", name="batch_of_pack", condition=Q(acked_at=None, pack_id__isnull=False)),
            models.Index("acked_at", name="batch_acked", condition=Q(acked_at__isnull=False)),
            models.Index(F("sealed_at").desc(), F("id").desc(), name="batch_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.rows} changes, {self.first_seq} to {self.last_seq}"


class SyncState(models.Model):
    """The one row that says whether the backup works, and if not, why.

    Attributes:
        epoch: null until the archive was asked which ones it has seen: a new database's numbers begin anew.
        failing_since: the first failure after the last success.
        alerted: what staff were last told of, so that they are told once.
    """

    class Status(models.TextChoices):
        """What the last try showed."""

        HEALTHY = "healthy"
        FAILING = "failing"
        DISABLED = "disabled"

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.HEALTHY)
    reason = models.TextField(blank=True, default="")
    epoch = models.BigIntegerField(null=True, help_text="Raised by a restore, and higher than any in the archive.")
    awaits_restore = models.BooleanField(
        default=False,
        db_default=False,
        help_text="The database is newer than its backup: what was before has to come back.",
    )
    last_success_at = models.DateTimeField(null=True)
    failing_since = models.DateTimeField(null=True)
    next_probe_at = models.DateTimeField(null=True)
    paused_at = models.DateTimeField(null=True)
    paused_by = models.UUIDField(null=True)
    alerted = models.CharField(max_length=20, blank=True, default="")
    alerted_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "dr_sync_state"
        verbose_name = "backup"
        verbose_name_plural = "backup"
        constraints: ClassVar = [models.CheckConstraint(condition=Q(id=1), name="sync_state_is_one_row")]

    def __str__(self) -> str:
        return self.status


class Run(models.Model):
    """A run of the sync that shipped something, failed, or changed the state; idle ones leave no trace."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    status = models.CharField(max_length=10)
    reason = models.TextField(blank=True, default="")
    sealed = models.PositiveIntegerField(default=0, help_text="Batches sealed.")
    batches = models.PositiveIntegerField(default=0, help_text="Batches shipped.")
    loads = models.PositiveIntegerField(default=0, help_text="Load jobs among what shipped them.")
    rows = models.PositiveIntegerField(default=0)
    bytes = models.BigIntegerField(default=0)
    retries = models.PositiveIntegerField(default=0, help_text="Batches that had been tried before.")
    failures = models.PositiveIntegerField(default=0)
    backlog = models.BigIntegerField(default=0, help_text="Changes that were left.")
    lag_seconds = models.FloatField(default=0, help_text="Age of the oldest change that was left.")

    class Meta:
        db_table = "dr_runs"
        indexes: ClassVar = [models.Index(F("started_at").desc(), F("id").desc(), name="run_newest")]

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d %H:%M:%S} {self.status}"


class DailyFigures(models.Model):
    """What the backup did on a day (UTC).

    Attributes:
        rpo_counts: how many rows were acknowledged how long after their change, by the bounds of `dr.figures.RPO_BOUNDS`.
    """

    date = models.DateField(primary_key=True)
    rows = models.BigIntegerField(default=0, db_default=0)
    bytes = models.BigIntegerField(default=0, db_default=0)
    batches = models.BigIntegerField(default=0, db_default=0)
    loads = models.BigIntegerField(default=0, db_default=0)
    retries = models.BigIntegerField(default=0, db_default=0)
    failures = models.BigIntegerField(default=0, db_default=0)
    seconds = models.FloatField(default=0, db_default=0, help_text="Spent shipping.")
    rpo_counts = ArrayField(models.BigIntegerField(), default=list, db_default=[])
    rpo_max_seconds = models.FloatField(default=0, db_default=0)

    class Meta:
        db_table = "dr_daily_figures"
        verbose_name_plural = "daily figures"

    def __str__(self) -> str:
        return f"{self.date}: {self.rows} rows"


class Restore(models.Model):
    """A restore that was begun, and its report once it ended."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant_id = models.UUIDField(null=True, help_text="Null for all.")
    as_of = models.DateTimeField(null=True, help_text="Null for the latest state.")
    tiers = ArrayField(models.CharField(max_length=10), default=list)
    dry_run = models.BooleanField(default=False)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    ok = models.BooleanField(null=True)
    report = models.JSONField(default=dict)

    class Meta:
        db_table = "dr_restores"
        constraints: ClassVar = [RowSecurity(name="restore_row_security")]
        indexes: ClassVar = [models.Index(F("started_at").desc(), name="restore_newest")]

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d %H:%M} {self.tenant_id or 'all'}"


class Verification(models.Model):
    """A comparison of the tiers, for all tenants or one."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant_id = models.UUIDField(null=True, help_text="Null for all.")
    deep = models.BooleanField(default=False)
    repair = models.BooleanField(default=False)
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    checked = models.BigIntegerField(default=0)
    mismatched = models.BigIntegerField(default=0)
    missing = models.BigIntegerField(default=0)
    extra = models.BigIntegerField(default=0)
    repaired = models.BigIntegerField(default=0)
    error = models.TextField(blank=True, default="", help_text="Why it could not be carried through.")

    class Meta:
        db_table = "dr_verifications"
        constraints: ClassVar = [RowSecurity(name="verification_row_security")]
        indexes: ClassVar = [models.Index(F("started_at").desc(), name="verification_newest")]

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d %H:%M} {'deep' if self.deep else 'shallow'}"

    @property
    def is_clean(self) -> bool:
        """Whether it was carried through and found nothing."""
        return bool(self.finished_at and not self.error and not (self.mismatched or self.missing or self.extra))


class Finding(models.Model):
    """One fault that a verification found; tenant zero stands for what belongs to the platform."""

    class Kind(models.TextChoices):
        """What is wrong."""

        MISMATCHED = "mismatched"
        MISSING = "missing"
        EXTRA = "extra"

    class Tier(models.TextChoices):
        """Where it is wrong."""

        POSTGRES = "postgres"
        SPOOL = "spool"
        ZERODB = "zerodb"
        BIGQUERY = "bigquery"
        MEDIA = "media"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    verification_id = models.UUIDField(help_text="The run that saw it last.")
    tenant_id = models.UUIDField()
    entity_type = models.CharField(max_length=20)
    entity_id = models.UUIDField()
    version = models.PositiveIntegerField(default=0)
    tier = models.CharField(max_length=10, choices=Tier.choices)
    kind = models.CharField(max_length=10, choices=Kind.choices)
    problem = models.TextField()
    found_at = models.DateTimeField()
    repaired_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "dr_findings"
        constraints: ClassVar = [
            models.CheckConstraint(
                condition=Q(tier__in=["postgres", "spool", "zerodb", "bigquery", "media"]), name="finding_tier_known"
            ),
            models.CheckConstraint(condition=Q(kind__in=["mismatched", "missing", "extra"]), name="finding_kind_known"),
            RowSecurity(name="finding_row_security"),
        ]
        indexes: ClassVar = [models.Index("tenant_id", F("found_at").desc(), name="finding_newest")]

    def __str__(self) -> str:
        return f"{self.tier}: {self.entity_type} {self.entity_id} version {self.version}: {self.problem}"


class Drill(models.Model):
    """A disaster that was played through on throw-away data, and what it measured."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    scenario = models.CharField(max_length=30)
    scheduled = models.BooleanField(default=False, help_text="By beat, of a sampled tenant's real backup.")
    tenant_id = models.UUIDField(null=True, help_text="The sampled tenant.")
    started_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    ok = models.BooleanField(null=True)
    items = models.BigIntegerField(default=0)
    lost = models.BigIntegerField(default=0)
    mismatched = models.BigIntegerField(default=0)
    rto_seconds = models.FloatField(null=True)
    rpo_seconds = models.FloatField(null=True)
    report = models.JSONField(default=dict)

    class Meta:
        db_table = "dr_drills"
        constraints: ClassVar = [RowSecurity(name="drill_row_security")]
        indexes: ClassVar = [models.Index(F("started_at").desc(), name="drill_newest")]

    def __str__(self) -> str:
        return f"{self.started_at:%Y-%m-%d} {self.scenario}"


class Erasure(models.Model):
    """The removal of a tenant or one item from every tier and the backup, and its certificate; it names no person's data."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant_id = models.UUIDField()
    content_id = models.UUIDField(null=True, help_text="Null for all of the tenant.")
    reason = models.CharField(max_length=300, blank=True, default="")
    requested_by = models.UUIDField(null=True, help_text="Null for a command.")
    requested_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True)
    steps = models.JSONField(default=dict, help_text="What is done already, by tier; a repeat goes on after it.")
    certificate = models.JSONField(null=True)

    class Meta:
        db_table = "dr_erasures"
        constraints: ClassVar = [
            models.UniqueConstraint(
                fields=["tenant_id", "content_id"],
                condition=Q(finished_at=None),
                nulls_distinct=False,
                name="one_erasure_at_a_time",
            ),
            RowSecurity(name="erasure_row_security"),
        ]
        indexes: ClassVar = [models.Index(F("requested_at").desc(), name="erasure_newest")]

    def __str__(self) -> str:
        return f"{self.tenant_id} {self.content_id or ''}"


class MediaCopy(models.Model):
    """The bytes of a media file in the second storage.

    `next_try_at` is a lease and a backoff, as of a batch. Once nothing in the first storage needs the bytes any more they
    are kept for a while, for restores to an earlier time.
    """

    blob_id = models.UUIDField(primary_key=True)
    tenant_id = models.UUIDField()
    storage_key = models.CharField(max_length=200)
    sha256 = models.BinaryField()
    size_bytes = models.BigIntegerField()
    attempts = models.PositiveIntegerField(default=0, db_default=0)
    next_try_at = models.DateTimeField(db_default=Now())
    last_error = models.TextField(blank=True, default="", db_default="")
    copied_at = models.DateTimeField(null=True)
    checked_at = models.DateTimeField(null=True)
    unneeded_since = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "dr_media_copies"
        verbose_name_plural = "media copies"
        constraints: ClassVar = [RowSecurity(name="media_copy_row_security")]
        indexes: ClassVar = [
            models.Index("next_try_at", name="media_copy_due", condition=Q(copied_at=None)),
            models.Index("checked_at", name="media_copy_checked", condition=Q(copied_at__isnull=False)),
            models.Index("unneeded_since", name="media_copy_unneeded", condition=Q(unneeded_since__isnull=False)),
        ]

    def __str__(self) -> str:
        return self.storage_key
