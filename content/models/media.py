"""Media files: what they are, the bytes that equal files share, and which items use them."""

from typing import ClassVar

from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Now
from uuid_utils.compat import uuid7

from content.models.items import ContentItem
from engarde.accounts.models import Tenant
from engarde.common.constraints import BackedUp, RowSecurity, TenantForeignKey

WEB_URL = r"^https?://[^[:space:][:cntrl:]]+$"


class Blob(models.Model):
    """Bytes in the media storage, once a tenant and checksum; a sweep removes them a day after their last use."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    sha256 = models.BinaryField()
    size_bytes = models.BigIntegerField()
    storage_key = models.CharField(max_length=200)
    thumbnail_key = models.CharField(max_length=200, blank=True, default="")
    unused_since = models.DateTimeField(null=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "content_media_blobs"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "id"], name="blob_of_tenant"),
            models.UniqueConstraint(fields=["tenant", "sha256"], name="blob_once_a_tenant"),
            models.CheckConstraint(condition=Q(size_bytes__gte=0), name="blob_size_not_negative"),
            RowSecurity(name="blob_row_security"),
            BackedUp(name="blob_backed_up", entity_type="blob", left_out=["unused_since"]),
        ]
        indexes: ClassVar = [models.Index("unused_since", name="blob_unused", condition=Q(unused_since__isnull=False))]

    def __str__(self) -> str:
        return self.storage_key


class Upload(models.Model):
    """Bytes that are on their way into the storage: should the process die, a sweep finds them here."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    storage_key = models.CharField(max_length=200)
    started_at = models.DateTimeField(db_default=Now())

    class Meta:
        db_table = "content_media_uploads"
        constraints: ClassVar = [RowSecurity(name="upload_row_security")]
        indexes: ClassVar = [models.Index("started_at", name="upload_oldest")]

    def __str__(self) -> str:
        return self.storage_key


class FileType(models.TextChoices):
    """Kinds of media files."""

    IMAGE = "image"
    VIDEO = "video"
    AUDIO = "audio"
    DOCUMENT = "document"
    OTHER = "other"


class Media(models.Model):
    """A media file as its tenant sees it; counted in the quota with its own size, even where bytes are shared.

    It has either bytes here (`blob`) or, being a reference, an address elsewhere, and then a size of 0.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    blob = models.ForeignKey(Blob, models.PROTECT, related_name="media", db_constraint=False, null=True)
    external_url = models.TextField(
        blank=True, default="", db_default="", help_text="Of a reference: where the file is."
    )
    content_id = models.UUIDField(null=True, help_text="The item it was uploaded for.")
    file_name = models.CharField(max_length=255)
    file_type = models.CharField(max_length=10, choices=FileType.choices)
    mime_type = models.CharField(max_length=127)
    size_bytes = models.BigIntegerField()
    width = models.PositiveIntegerField(null=True)
    height = models.PositiveIntegerField(null=True)
    uploaded_by = models.UUIDField(null=True, help_text="The user or API key; null for an import.")
    created_at = models.DateTimeField()

    class Meta:
        db_table = "content_media"
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "id"], name="media_of_tenant"),
            models.CheckConstraint(condition=Q(file_type__in=FileType.values), name="media_type_known"),
            models.CheckConstraint(condition=Q(size_bytes__gte=0), name="media_size_not_negative"),
            models.CheckConstraint(
                condition=Q(blob__isnull=False, external_url="")
                | Q(~Q(external_url=""), blob__isnull=True, size_bytes=0),
                name="media_has_bytes_or_url",
            ),
            models.CheckConstraint(
                condition=Q(external_url="") | Q(external_url__iregex=WEB_URL), name="media_url_of_the_web"
            ),
            TenantForeignKey(name="media_blob_of_tenant", column="blob_id", to="content.Blob"),
            RowSecurity(name="media_row_security"),
            BackedUp(name="media_backed_up", entity_type="media"),
        ]
        indexes: ClassVar = [
            models.Index("tenant", F("created_at").desc(), F("id").desc(), name="media_newest"),
            models.Index("tenant", "content_id", name="media_of_item", condition=Q(content_id__isnull=False)),
        ]

    def __str__(self) -> str:
        return self.file_name


class MediaUse(models.Model):
    """A live item's current version uses a media file; the foreign key keeps that file from being deleted."""

    pk = models.CompositePrimaryKey("content_id", "media_id")
    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    content = models.ForeignKey(ContentItem, models.CASCADE, related_name="+", db_constraint=False, db_index=False)
    media = models.ForeignKey(Media, models.PROTECT, related_name="uses", db_constraint=False)

    class Meta:
        db_table = "content_media_uses"
        constraints: ClassVar = [
            TenantForeignKey(name="media_use_of_tenants_content", column="content_id", to="content.ContentItem"),
            TenantForeignKey(name="media_use_of_tenants_media", column="media_id", to="content.Media"),
            RowSecurity(name="media_use_row_security"),
        ]

    def __str__(self) -> str:
        return f"{self.content_id} uses {self.media_id}"
