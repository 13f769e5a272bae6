"""Items, versions, the spool of documents on their way out, and the change log that the backup reads."""

from typing import ClassVar

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from engarde.accounts.models import Brand, Tenant
from engarde.common.constraints import RowSecurity, TenantForeignKey


class ContentType(models.TextChoices):
    """Kinds of content."""

    POST = "post"
    STORY = "story"
    AD = "ad"
    ARTICLE = "article"
    TWEET = "tweet"
    IMAGE = "image"
    VIDEO = "video"
    CAROUSEL = "carousel"
    REEL = "reel"


class Status(models.TextChoices):
    """Where an item is on its way to the public."""

    DRAFT = "draft"
    SCHEDULED = "scheduled"
    PUBLISHED = "published"
    ARCHIVED = "archived"


class ChangeType(models.TextChoices):
    """What made a version."""

    CREATE = "create"
    UPDATE = "update"
    PUBLISH = "publish"
    ARCHIVE = "archive"
    DELETE = "delete"
    RESTORE = "restore"


class ContentItem(models.Model):
    """An item's facts: only what is filtered, sorted or counted; everything else is in its document.

    `sha256` is of the current version's canonical document, `size_bytes` of its body in UTF-8.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    brand = models.ForeignKey(Brand, models.PROTECT, related_name="+", db_constraint=False, db_index=False)
    campaign_space_id = models.UUIDField(null=True)
    author_id = models.UUIDField(null=True, help_text="The user or API key that made it; null for an import.")
    title = models.CharField(max_length=300)
    content_type = models.CharField(max_length=10, choices=ContentType.choices)
    status = models.CharField(max_length=10, choices=Status.choices)
    version = models.PositiveIntegerField()
    size_bytes = models.PositiveIntegerField()
    sha256 = models.BinaryField()
    scheduled_at = models.DateTimeField(null=True)
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    deleted_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "content_storage_metadata"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "id"], name="content_of_tenant"),
            models.CheckConstraint(condition=Q(content_type__in=ContentType.values), name="content_type_known"),
            models.CheckConstraint(condition=Q(status__in=Status.values), name="content_status_known"),
            models.CheckConstraint(condition=Q(version__gte=1), name="content_version_from_one"),
            models.CheckConstraint(
                condition=~Q(status=Status.SCHEDULED) | Q(scheduled_at__isnull=False), name="content_scheduled_has_time"
            ),
            TenantForeignKey(name="content_brand_of_tenant", column="brand_id", to="accounts.Brand"),
            RowSecurity(name="content_row_security"),
        ]
        indexes: ClassVar = [
            models.Index(
                "tenant", F("created_at").desc(), F("id").desc(), name="content_newest", condition=Q(deleted_at=None)
            ),
            models.Index("tenant", "brand", name="content_by_brand"),
            models.Index("scheduled_at", name="content_due", condition=Q(status=Status.SCHEDULED, deleted_at=None)),
        ]

    def __str__(self) -> str:
        return self.title


class ContentVersion(models.Model):
    """One version's facts; never changed once written, but for where its document and backup are."""

    pk = models.CompositePrimaryKey("content_id", "version")
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    content = models.ForeignKey(
        ContentItem, models.CASCADE, related_name="versions", db_constraint=False, db_index=False
    )
    version = models.PositiveIntegerField()
    size_bytes = models.PositiveIntegerField()
    sha256 = models.BinaryField()
    change_type = models.CharField(max_length=10, choices=ChangeType.choices)
    changed_by = models.UUIDField(null=True, help_text="The user or API key; null for the platform itself.")
    created_at = models.DateTimeField()
    zerodb_row_id = models.CharField(max_length=64, null=True)  # noqa: DJ001 -- null: ZeroDB has not confirmed it
    backed_up_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "content_versions"
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(change_type__in=ChangeType.values), name="version_change_type_known"),
            TenantForeignKey(name="version_of_tenants_content", column="content_id", to="content.ContentItem"),
            RowSecurity(name="version_row_security"),
        ]
        indexes: ClassVar = [models.Index("tenant", "content", "version", name="version_by_tenant")]

    def __str__(self) -> str:
        return f"{self.content_id} version {self.version}"


class SpooledDocument(models.Model):
    """A document (zstd) that ZeroDB or the backup does not have yet; it is why a write that got its answer stays."""

    pk = models.CompositePrimaryKey("content_id", "version")
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    content = models.ForeignKey(ContentItem, models.CASCADE, related_name="+", db_constraint=False, db_index=False)
    version = models.PositiveIntegerField()
    sha256 = models.BinaryField()
    document = models.BinaryField()
    uploaded_at = models.DateTimeField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField()
    last_error = models.TextField(default="", blank=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "content_body_spool"
        constraints: ClassVar = [
            TenantForeignKey(name="spool_of_tenants_content", column="content_id", to="content.ContentItem"),
            RowSecurity(name="spool_row_security"),
        ]
        indexes: ClassVar = [
            models.Index("next_attempt_at", name="spool_due", condition=Q(uploaded_at=None)),
        ]

    def __str__(self) -> str:
        return f"{self.content_id} version {self.version}"


class Change(models.Model):
    """A line of the change log, written by a trigger in the mutation's own transaction; the backup consumes it.

    It is claimed by `batch_id` with SKIP LOCKED, never by `seq > last`: numbers become visible out of order.
    """

    class Op(models.TextChoices):
        """What happened to the entity."""

        INSERT = "I"
        UPDATE = "U"
        DELETE = "D"
        PURGE = "P"

    seq = models.BigAutoField(primary_key=True)
    xid = models.BigIntegerField(help_text="The transaction that made the change.")
    tenant_id = models.UUIDField()
    entity_type = models.CharField(max_length=20)
    entity_id = models.UUIDField()
    version = models.PositiveIntegerField()
    op = models.CharField(max_length=1, choices=Op.choices)
    sha256 = models.BinaryField()
    changed_at = models.DateTimeField()
    batch_id = models.UUIDField(null=True)
    acked_at = models.DateTimeField(null=True)

    class Meta:
        db_table = "content_changes"
        constraints: ClassVar = [RowSecurity(name="change_row_security")]
        indexes: ClassVar = [
            models.Index("seq", name="change_unclaimed", condition=Q(batch_id=None)),
            models.Index("seq", name="change_unacked", condition=Q(acked_at=None)),
            models.Index("batch_id", name="change_by_batch", condition=Q(batch_id__isnull=False)),
            models.Index("tenant_id", "entity_id", "version", name="change_by_entity"),
        ]

    def __str__(self) -> str:
        return f"{self.seq} {self.op} {self.entity_type} {self.entity_id}"
