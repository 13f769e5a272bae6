"""Items, their versions, and what lists are filtered and searched by."""

from typing import ClassVar

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.indexes import GinIndex
from django.contrib.postgres.search import SearchVectorField
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


LIVE = Q(deleted_at=None)
NEWEST_FIRST = (F("created_at").desc(), F("id").desc())


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
            models.Index("tenant", *NEWEST_FIRST, name="content_newest", condition=LIVE),
            models.Index("tenant", F("updated_at").desc(), F("id").desc(), name="content_changed", condition=LIVE),
            models.Index("tenant", "title", "id", name="content_by_title", condition=LIVE),
            models.Index("tenant", "brand", *NEWEST_FIRST, name="content_of_brand"),
            models.Index("tenant", "status", *NEWEST_FIRST, name="content_by_status", condition=LIVE),
            models.Index("tenant", "content_type", *NEWEST_FIRST, name="content_by_type", condition=LIVE),
            models.Index(
                "tenant",
                "campaign_space_id",
                *NEWEST_FIRST,
                name="content_of_campaign",
                condition=LIVE & Q(campaign_space_id__isnull=False),
            ),
            models.Index("tenant", "deleted_at", "id", name="content_trash", condition=Q(deleted_at__isnull=False)),
            models.Index("scheduled_at", name="content_due", condition=LIVE & Q(status=Status.SCHEDULED)),
        ]

    def __str__(self) -> str:
        return self.title


class ContentVersion(models.Model):
    """One version's facts; never changed once written, but for where its document and backup are.

    Triggers see to what follows from a version, so that no path can forget it: its change record for ZeroDB and the
    deliveries to webhooks when it comes, the removal of its document and record when it goes.
    """

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
    changed_fields = ArrayField(models.TextField(), default=list, help_text="Against the version before it.")
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
        indexes: ClassVar = [
            models.Index("tenant", "content", "version", name="version_by_tenant"),
            models.Index("tenant", F("created_at").desc(), "content", "version", name="version_newest"),
        ]

    def __str__(self) -> str:
        return f"{self.content_id} version {self.version}"


class Label(models.Model):
    """A text by which items are found; in a table of its own because text equality may use an index under row security."""

    tenant = models.ForeignKey(Tenant, models.PROTECT, related_name="+", db_index=False)
    name = models.CharField(max_length=100)
    content = models.ForeignKey(ContentItem, models.CASCADE, related_name="+", db_constraint=False)

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.name


class Tag(Label):
    """A tag of an item's current version."""

    pk = models.CompositePrimaryKey("tenant_id", "name", "content_id")

    class Meta:
        db_table = "content_tags"
        constraints: ClassVar = [
            TenantForeignKey(name="tag_of_tenants_content", column="content_id", to="content.ContentItem"),
            RowSecurity(name="tag_row_security"),
        ]


class Platform(Label):
    """A platform that an item's current version is meant for."""

    pk = models.CompositePrimaryKey("tenant_id", "name", "content_id")

    class Meta:
        db_table = "content_platforms"
        constraints: ClassVar = [
            TenantForeignKey(name="platform_of_tenants_content", column="content_id", to="content.ContentItem"),
            RowSecurity(name="platform_row_security"),
        ]


class SearchEntry(models.Model):
    """The words of a live item's title and body; only `content.search` reads it."""

    without_row_security = "Under row security `@@` may not use an index. Its one reader filters by tenant and joins the items under their policy."

    content = models.OneToOneField(ContentItem, models.CASCADE, primary_key=True, related_name="+", db_constraint=False)
    tenant_id = models.UUIDField()
    language = models.CharField(max_length=20, help_text="PostgreSQL's text search configuration.")
    words = SearchVectorField()

    class Meta:
        db_table = "content_search"
        indexes: ClassVar = [GinIndex("tenant_id", "words", name="content_search_words")]

    def __str__(self) -> str:
        return str(self.content_id)


class IndexedBrand(models.Model):
    """The language tag under which all of a brand's items are indexed; another one in the brand means to index them anew."""

    brand = models.OneToOneField(Brand, models.CASCADE, primary_key=True, related_name="+", db_constraint=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="+", db_index=False)
    language = models.CharField(max_length=35)
    indexed_at = models.DateTimeField(db_default=Now())
    is_settled = models.BooleanField(default=False, help_text="Looked at again once all writes of then were over.")

    class Meta:
        db_table = "content_indexed_brands"
        constraints: ClassVar = [
            TenantForeignKey(name="indexed_brand_of_tenant", column="brand_id", to="accounts.Brand"),
            RowSecurity(name="indexed_brand_row_security"),
        ]

    def __str__(self) -> str:
        return f"{self.brand_id} {self.language}"
