"""Provider keys, jobs, their items, and the events that progress is told by."""

from typing import ClassVar

from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from engarde.accounts.models import Tenant
from engarde.common.constraints import BackedUp, RowSecurity, TenantForeignKey


class Provider(models.TextChoices):
    """Whose models write."""

    OPENAI = "openai", "OpenAI"
    ANTHROPIC = "anthropic", "Anthropic"
    GOOGLE = "google", "Google"
    DEEPSEEK = "deepseek", "DeepSeek"
    QWEN = "qwen", "Qwen"
    META_LLAMA = "meta_llama", "Meta Llama"
    LOCAL = "local", "Local"


class KeyStatus(models.TextChoices):
    """What the last check of a key found."""

    VALID = "valid"
    INVALID = "invalid"
    NO_CREDIT = "no_credit"
    UNREACHABLE = "unreachable"
    UNCHECKED = "unchecked"


class LLMKey(models.Model):
    """A tenant's key for a provider; only this platform's master keys read it."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_index=False)
    provider = models.CharField(max_length=12, choices=Provider.choices)
    secret = models.TextField(help_text="Encrypted.")
    master_key_id = models.CharField(max_length=16, help_text="Names the master key that it is encrypted under.")
    last4 = models.CharField(max_length=4)
    status = models.CharField(max_length=12, choices=KeyStatus.choices, default=KeyStatus.UNCHECKED)
    checked_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    updated_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "tenant_llm_keys"
        verbose_name = "provider key"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "provider"], name="one_llm_key_per_provider"),
            models.CheckConstraint(condition=Q(provider__in=Provider.values), name="llm_key_provider_known"),
            models.CheckConstraint(condition=Q(status__in=KeyStatus.values), name="llm_key_status_known"),
            RowSecurity(name="llm_key_row_security"),
        ]

    def __str__(self) -> str:
        return f"{self.provider} …{self.last4}"

    @property
    def is_active(self) -> bool:
        """Whether it is used: until the provider refuses it, and again once a check or another key is good."""
        return self.status != KeyStatus.INVALID


class LLMKeyEvent(models.Model):
    """An entry of the audit trail of provider keys; never changed, and kept when the key is gone."""

    class Action(models.TextChoices):
        """What happened to a key."""

        STORED = "stored"
        REPLACED = "replaced"
        CHECKED = "checked"
        REFUSED = "refused"  # by the provider, while it was used
        REMOVED = "removed"
        UNREADABLE = "unreadable"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_index=False)
    provider = models.CharField(max_length=12, choices=Provider.choices)
    action = models.CharField(max_length=12, choices=Action.choices)
    last4 = models.CharField(max_length=4)
    status = models.CharField(max_length=12, choices=KeyStatus.choices)
    actor_id = models.UUIDField(null=True, help_text="The user or API key; null for the platform itself.")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "tenant_llm_key_events"
        verbose_name = "provider key event"
        constraints: ClassVar = [RowSecurity(name="llm_key_event_row_security")]
        indexes: ClassVar = [
            models.Index("tenant", F("created_at").desc(), F("id").desc(), name="llm_key_event_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.provider} …{self.last4} {self.action}"


class JobStatus(models.TextChoices):
    """Where a job is."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    COMPLETED_WITH_ERRORS = "completed_with_errors"
    FAILED = "failed"
    CANCELLED = "cancelled"


ACTIVE = (JobStatus.PENDING, JobStatus.RUNNING)
UNFINISHED = (*ACTIVE, JobStatus.PAUSED)


class Job(models.Model):
    """A batch of texts to generate. Its counters equal the sums over its items.

    Attributes:
        last_seq: how many items finished so far; an item that is tried again after it failed counts again.
        touched_at: when a worker last had it in hand, or was last asked to.
        not_before: nothing can be done before; the provider asked to be left alone.
        refused_since: since when the provider has said nothing but "too many calls".
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_index=False)
    brand_id = models.UUIDField(help_text="The tenant's when the job was made; a brand may go before its jobs do.")
    created_by = models.UUIDField(help_text="The user or API key.")
    notify = models.BooleanField(default=True, db_default=True, help_text="Whether its end is told by mail.")
    status = models.CharField(max_length=24, choices=JobStatus.choices, default=JobStatus.PENDING)
    content_type = models.CharField(max_length=10)
    target_count = models.PositiveIntegerField(validators=[MinValueValidator(1)])
    concurrency = models.PositiveSmallIntegerField()
    provider = models.CharField(max_length=12, choices=Provider.choices)
    model = models.CharField(max_length=200)
    params = models.JSONField(help_text="What to write: prompt template, topics, tone and so on.")
    input_price = models.DecimalField(
        max_digits=18, decimal_places=9, null=True, help_text="USD per million tokens; null: nobody knows."
    )
    output_price = models.DecimalField(max_digits=18, decimal_places=9, null=True)
    max_cost_usd = models.DecimalField(max_digits=18, decimal_places=9, null=True)
    item_cost_limit = models.DecimalField(
        max_digits=18, decimal_places=9, null=True, help_text="What one try of an item costs at most."
    )
    estimated_cost_usd = models.DecimalField(max_digits=18, decimal_places=9, null=True)
    estimated_item_bytes = models.PositiveIntegerField()

    completed = models.PositiveIntegerField(default=0, db_default=0)
    failed = models.PositiveIntegerField(default=0, db_default=0)
    last_seq = models.PositiveIntegerField(default=0, db_default=0)
    stored_bytes = models.PositiveBigIntegerField(default=0, db_default=0)
    cost_usd = models.DecimalField(max_digits=18, decimal_places=9, default=0, db_default=0)
    input_tokens = models.PositiveBigIntegerField(default=0, db_default=0)
    output_tokens = models.PositiveBigIntegerField(default=0, db_default=0)
    error_code = models.CharField(max_length=40, blank=True, default="", db_default="")
    error_message = models.TextField(blank=True, default="", db_default="")

    created_at = models.DateTimeField()
    started_at = models.DateTimeField(null=True)
    completed_at = models.DateTimeField(null=True)
    touched_at = models.DateTimeField(null=True)
    not_before = models.DateTimeField(null=True)
    refused_since = models.DateTimeField(null=True)

    class Meta:
        db_table = "content_generation_jobs"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "id"], name="job_of_tenant"),
            models.CheckConstraint(condition=Q(status__in=JobStatus.values), name="job_status_known"),
            models.CheckConstraint(condition=Q(target_count__gte=1), name="job_has_items"),
            models.CheckConstraint(
                condition=Q(target_count__gte=F("completed") + F("failed")), name="job_counts_within_target"
            ),
            RowSecurity(name="job_row_security"),
            BackedUp(
                name="job_backed_up",
                entity_type="job",
                left_out=["touched_at", "not_before", "last_seq"],
                noticed=["status", "max_cost_usd", "concurrency"],
                comparable="status NOT IN ('pending', 'running', 'paused')",
            ),
        ]
        indexes: ClassVar = [
            models.Index("tenant", F("created_at").desc(), F("id").desc(), name="job_newest"),
            models.Index("touched_at", name="job_active", condition=Q(status__in=ACTIVE)),
        ]

    def __str__(self) -> str:
        return f"{self.target_count} {self.content_type}, {self.get_status_display().lower()}"

    @property
    def is_finished(self) -> bool:
        """Whether its status is final, until somebody has failed items tried again."""
        return self.status not in UNFINISHED


class ItemStatus(models.TextChoices):
    """Where an item of a job is."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class JobItem(models.Model):
    """One text of a job.

    Attributes:
        lease: names the worker that has it in hand; whoever has another one may not settle it.
    """

    pk = models.CompositePrimaryKey("job_id", "index")
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_index=False)
    job = models.ForeignKey(Job, models.CASCADE, related_name="items", db_constraint=False, db_index=False)
    index = models.PositiveIntegerField()
    status = models.CharField(
        max_length=10, choices=ItemStatus.choices, default=ItemStatus.PENDING, db_default="pending"
    )
    attempts = models.PositiveSmallIntegerField(default=0, db_default=0)
    next_attempt_at = models.DateTimeField(db_default=Now())
    lease = models.UUIDField(null=True)
    lease_until = models.DateTimeField(null=True)
    content_id = models.UUIDField(null=True)
    error_code = models.CharField(max_length=40, blank=True, default="", db_default="")
    error = models.TextField(blank=True, default="", db_default="")
    cost_usd = models.DecimalField(max_digits=18, decimal_places=9, default=0, db_default=0)
    input_tokens = models.PositiveBigIntegerField(default=0, db_default=0)
    output_tokens = models.PositiveBigIntegerField(default=0, db_default=0)

    class Meta:
        db_table = "content_generation_items"
        verbose_name = "generated item"
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(status__in=ItemStatus.values), name="job_item_status_known"),
            models.CheckConstraint(
                condition=Q(status=ItemStatus.COMPLETED, content_id__isnull=False)
                | (~Q(status=ItemStatus.COMPLETED) & Q(content_id__isnull=True)),
                name="job_item_completed_has_content",
            ),
            models.CheckConstraint(
                condition=~Q(status=ItemStatus.FAILED) | ~Q(error_code=""), name="job_item_failed_has_error"
            ),
            models.CheckConstraint(
                condition=Q(status=ItemStatus.RUNNING, lease__isnull=False, lease_until__isnull=False)
                | (~Q(status=ItemStatus.RUNNING) & Q(lease__isnull=True)),
                name="job_item_running_has_lease",
            ),
            models.UniqueConstraint(fields=["content_id"], name="job_item_of_content"),
            TenantForeignKey(name="job_item_of_tenants_job", column="job_id", to="generation.Job"),
            RowSecurity(name="job_item_row_security"),
            BackedUp(
                name="job_item_backed_up",
                entity_type="job_item",
                key=["job_id", "index"],
                left_out=["lease", "lease_until", "next_attempt_at"],
                when="NEW.status IN ('completed', 'failed', 'cancelled') AND OLD.status IS DISTINCT FROM NEW.status",
                events=["UPDATE"],
                comparable="status IN ('completed', 'failed', 'cancelled')",
            ),
        ]
        indexes: ClassVar = [
            models.Index("job", "index", name="job_item_pending", condition=Q(status="pending")),
            models.Index("job", "lease_until", name="job_item_running", condition=Q(status="running")),
            models.Index("job", "status", "index", name="job_item_by_status"),
        ]

    def __str__(self) -> str:
        return f"{self.job_id} {self.index}"


class JobEvent(models.Model):
    """An item that finished, in the order in which they did: what progress is told by, without holes, once each."""

    pk = models.CompositePrimaryKey("job_id", "seq")
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_index=False)
    job = models.ForeignKey(Job, models.CASCADE, related_name="events", db_constraint=False, db_index=False)
    seq = models.PositiveIntegerField()
    index = models.PositiveIntegerField()
    status = models.CharField(max_length=10, choices=ItemStatus.choices)
    content_id = models.UUIDField(null=True)
    error_code = models.CharField(max_length=40, blank=True, default="", db_default="")

    class Meta:
        db_table = "content_generation_events"
        constraints: ClassVar = [
            TenantForeignKey(name="job_event_of_tenants_job", column="job_id", to="generation.Job"),
            RowSecurity(name="job_event_row_security"),
        ]

    def __str__(self) -> str:
        return f"{self.job_id} {self.seq}"
