"""What everybody writes first: one table with everything in it."""

import uuid

from django.db import models


class Item(models.Model):
    without_row_security = "The baseline filters by tenant and trusts itself."

    objects: models.Manager["Item"]

    id = models.UUIDField(primary_key=True, default=uuid.uuid4)
    tenant_id = models.UUIDField()
    title = models.CharField(max_length=300)
    type = models.CharField(max_length=10)
    content_type = models.CharField(max_length=10)
    status = models.CharField(max_length=10, default="draft")
    brand_id = models.UUIDField(null=True)
    campaign_space_id = models.UUIDField(null=True)
    platforms = models.JSONField(default=list)
    tags = models.JSONField(default=list)
    hashtags = models.JSONField(default=list)
    mentions = models.JSONField(default=list)
    media = models.JSONField(default=list)
    scheduled_at = models.DateTimeField(null=True)
    metadata = models.JSONField(default=dict)
    version = models.IntegerField(default=1)
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    deleted_at = models.DateTimeField(null=True)
    storage = models.JSONField(default=dict)
    ai_generation = models.JSONField(null=True)
    preview = models.CharField(max_length=200)
    body = models.TextField()

    class Meta:
        indexes = [models.Index(fields=["tenant_id", "-created_at", "-id"], name="baseline_newest")]

    def __str__(self) -> str:
        return self.title
