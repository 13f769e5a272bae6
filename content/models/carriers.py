"""What the carriers work off: documents and records on their way to ZeroDB, and the change log that the backup reads."""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.db.models.functions import Now

from content.models.items import ContentItem
from engarde.accounts.models import Tenant
from engarde.common.constraints import RowSecurity, TenantForeignKey


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


class SpooledRecord(models.Model):
    """What one key of a ZeroDB collection shall be: a record to put there, or null when its rows shall go.

    Triggers write it in the mutation's own transaction. One row a key: a removal takes the place of a put that was not
    made yet, and waits for the end of the put's lease if that is under way.
    """

    class Collection(models.TextChoices):
        """The collections."""

        DOCUMENTS = "content_items"
        VERSIONS = "content_versions"
        MEDIA = "content_media_files"

    pk = models.CompositePrimaryKey("collection", "key")
    collection = models.CharField(max_length=20, choices=Collection.choices)
    key = models.CharField(max_length=120)
    tenant_id = models.UUIDField()
    record = models.JSONField(null=True)
    attempts = models.PositiveIntegerField(default=0)
    next_attempt_at = models.DateTimeField(db_default=Now())
    last_error = models.TextField(default="", blank=True, db_default="")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "content_record_spool"
        constraints: ClassVar = [RowSecurity(name="record_spool_row_security")]
        indexes: ClassVar = [models.Index("next_attempt_at", name="record_spool_due")]

    def __str__(self) -> str:
        return f"{self.collection} {self.key}"


class Change(models.Model):
    """A line of the change log, written by a trigger in the mutation's own transaction; the backup consumes it.

    It is claimed by `batch_id` with SKIP LOCKED, never by `seq > last`: numbers become visible out of order.
    """

    CONTENT = "content"

    class Op(models.TextChoices):
        """What happened to the entity; thinned: an old version of it was removed for good."""

        INSERT = "I"
        UPDATE = "U"
        DELETE = "D"
        PURGE = "P"
        THIN = "T"

    seq = models.BigAutoField(primary_key=True)
    xid = models.BigIntegerField(help_text="The transaction that made the change.")
    tenant_id = models.UUIDField()
    entity_type = models.CharField(max_length=20)
    entity_id = models.UUIDField()
    version = models.PositiveIntegerField()
    op = models.CharField(max_length=1, choices=Op.choices)
    sha256 = models.BinaryField()
    facts = models.TextField(null=True, help_text="The row as JSON; null for content, whose versions never change.")  # noqa: DJ001
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
