"""Batches: what is sealed to be shipped, and what the backup has acknowledged."""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now


class Batch(models.Model):
    """A sealed batch of changes: whoever ships it, however often, ships the same rows.

    Nothing joins it any more; only a change whose document cannot be read leaves it, for a batch of its own.

    `next_try_at` is both the backoff after a failure and the lease of a worker that ships it now; it lives here, so
    it survives the broker.
    """

    id = models.UUIDField(primary_key=True, editable=False)
    rows = models.PositiveIntegerField()
    first_seq = models.BigIntegerField()
    last_seq = models.BigIntegerField()
    horizon = models.BigIntegerField(help_text="Every transaction below this one had ended when the batch was sealed.")
    sealed_at = models.DateTimeField(db_default=Now())
    attempts = models.PositiveIntegerField(default=0)
    next_try_at = models.DateTimeField(db_default=Now())
    last_error = models.TextField(blank=True, default="")
    bytes = models.BigIntegerField(null=True, help_text="Payload shipped.")
    acked_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "dr_batches"
        verbose_name_plural = "batches"
        indexes: ClassVar = [models.Index("next_try_at", name="batch_due", condition=Q(acked_at=None))]

    def __str__(self) -> str:
        return f"{self.rows} changes, {self.first_seq} to {self.last_seq}"


class SyncState(models.Model):
    """The one row that says whether the backup works, and if not, why."""

    class Status(models.TextChoices):
        """What the last try showed."""

        HEALTHY = "healthy"
        FAILING = "failing"
        DISABLED = "disabled"

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.HEALTHY)
    reason = models.TextField(blank=True, default="")
    epoch = models.BigIntegerField(default=1, help_text="Raised by a restore to an earlier time.")
    last_success_at = models.DateTimeField(null=True)
    next_probe_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "dr_sync_state"
        constraints: ClassVar = [models.CheckConstraint(condition=Q(id=1), name="sync_state_is_one_row")]

    def __str__(self) -> str:
        return self.status
