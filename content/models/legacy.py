"""How far a migration of old content got, and what it had to say of rows."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now
from uuid_utils.compat import uuid7


class LegacyRun(models.Model):
    """One run over a table of the old platform; a run that was broken off goes on behind `last_id`."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    table = models.CharField(max_length=40)
    tenant = models.CharField(max_length=100, blank=True, default="", help_text="As the old platform writes it.")
    last_id = models.TextField(  # noqa: DJ001 -- the empty text is an id like any other
        null=True, help_text="Of the last row of the last batch that was completed."
    )
    source = models.CharField(max_length=400, default="", help_text="The very table that it reads.")
    brought = ArrayField(models.UUIDField(), default=list, help_text="Tenants that came with it.")
    in_hand = ArrayField(
        models.UUIDField(), default=list, help_text="Items of the batch under way that were not here before it."
    )
    counts = models.JSONField(default=dict)
    started_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(auto_now=True)
    finished_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "content_legacy_runs"
        indexes: ClassVar = [models.Index(fields=["table", "tenant", "-started_at"], name="legacy_run_newest")]

    def __str__(self) -> str:
        return f"{self.table} from {self.started_at}"


class LegacyProblem(models.Model):
    """A row that a run could not bring over, or brought over with something to be known."""

    class Kind(models.TextChoices):
        """Whether the row stayed behind."""

        ERROR = "error"
        WARNING = "warning"

    run = models.ForeignKey(LegacyRun, models.CASCADE, related_name="problems")
    kind = models.CharField(max_length=10, choices=Kind.choices)
    of_tenant = models.UUIDField(null=True, help_text="The tenant whose the row is, as far as it says so.")
    old_id = models.TextField()
    code = models.CharField(max_length=60)
    message = models.TextField()

    class Meta:
        db_table = "content_legacy_problems"
        indexes: ClassVar = [models.Index("of_tenant", name="legacy_problem_of_tenant")]

    def __str__(self) -> str:
        return f"{self.old_id}: {self.code}"
