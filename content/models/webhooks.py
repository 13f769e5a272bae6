"""Webhooks: where a tenant wants to hear of its content, and each message on its way there."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from engarde.accounts.models import Tenant
from engarde.common.constraints import RowSecurity, TenantForeignKey


class Event(models.TextChoices):
    """What a webhook can be told."""

    CREATED = "content.created"
    UPDATED = "content.updated"
    PUBLISHED = "content.published"
    ARCHIVED = "content.archived"
    DELETED = "content.deleted"
    RESTORED = "content.restored"
    GENERATION_COMPLETED = "generation.completed"
    GENERATION_FAILED = "generation.failed"
    GENERATION_CANCELLED = "generation.cancelled"
    GENERATION_PAUSED = "generation.paused"


TEST_EVENT = "webhook.test"  # sent when somebody asks for it, to one webhook


class Webhook(models.Model):
    """An address of a tenant's that is told of events.

    After a rotation the previous secret also signs until `previous_secret_until`.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_index=False)
    url = models.CharField(max_length=2000)
    description = models.CharField(max_length=200, blank=True, default="")
    events = ArrayField(models.CharField(max_length=30), default=list, help_text="Empty for all.")
    secret = models.TextField(help_text="Encrypted; signs what is sent.")
    previous_secret = models.TextField(blank=True, default="")
    previous_secret_until = models.DateTimeField(null=True)
    is_active = models.BooleanField(default=True)
    disabled_reason = models.TextField(blank=True, default="")
    failures_in_a_row = models.PositiveIntegerField(default=0)
    failing_since = models.DateTimeField(null=True, help_text="The first failure after the last success.")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "content_webhooks"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "id"], name="webhook_of_tenant"),
            RowSecurity(name="webhook_row_security"),
        ]

    def __str__(self) -> str:
        return self.url


class Delivery(models.Model):
    """A message for a webhook, written by a trigger in the transaction of the version that it tells of.

    A test message tells of no version, nor does one that a higher room announced, which brings what it tells. While it is being sent, `next_attempt_at` is the end of the sender's lease.
    """

    class Status(models.TextChoices):
        """Where it is on its way."""

        PENDING = "pending"
        DELIVERED = "delivered"
        FAILED = "failed"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_index=False)
    webhook = models.ForeignKey(Webhook, models.CASCADE, related_name="deliveries", db_constraint=False, db_index=False)
    event = models.CharField(max_length=30, choices=Event.choices)
    content_id = models.UUIDField(null=True)
    version = models.PositiveIntegerField(null=True)
    data = models.JSONField(null=True, help_text="What is told, where it is no version of an item.")
    occurred_at = models.DateTimeField()
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.PENDING, db_default="pending")
    attempts = models.PositiveIntegerField(default=0, db_default=0)
    next_attempt_at = models.DateTimeField(db_default=Now())
    response_status = models.PositiveSmallIntegerField(null=True)
    last_error = models.TextField(blank=True, default="", db_default="")
    created_at = models.DateTimeField(db_default=Now())
    finished_at = models.DateTimeField(null=True, help_text="When it was delivered, or given up.")

    class Meta:
        db_table = "content_webhook_deliveries"
        verbose_name_plural = "deliveries"
        constraints: ClassVar = [
            TenantForeignKey(name="delivery_of_tenants_webhook", column="webhook_id", to="content.Webhook"),
            RowSecurity(name="delivery_row_security"),
        ]
        indexes: ClassVar = [
            models.Index("webhook", "next_attempt_at", name="delivery_due", condition=Q(status="pending")),
            models.Index("finished_at", name="delivery_finished", condition=Q(finished_at__isnull=False)),
            models.Index("tenant", "webhook", F("created_at").desc(), F("id").desc(), name="delivery_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.event} {self.content_id or ''}".rstrip()
