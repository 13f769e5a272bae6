"""Answers kept for requests that may be repeated."""

from typing import ClassVar

from django.db import models

from engarde.common.constraints import RowSecurity


class IdempotencyKey(models.Model):
    """A key that a caller sent with a request, and the answer once there is one.

    `token` names who works on it now, until `locked_until`: only that one can keep an answer.
    """

    pk = models.CompositePrimaryKey("tenant_id", "key")
    tenant_id = models.UUIDField()
    key = models.CharField(max_length=255)
    token = models.UUIDField()
    fingerprint = models.BinaryField(null=True, help_text="Of the request; null while a stream is still being read.")
    locked_until = models.DateTimeField()
    expires_at = models.DateTimeField()
    status = models.PositiveSmallIntegerField(null=True)
    headers = models.JSONField(default=dict)
    body = models.BinaryField(null=True)

    class Meta:
        db_table = "idempotency_keys"
        constraints: ClassVar = [RowSecurity(name="idempotency_key_row_security")]
        indexes: ClassVar = [models.Index("expires_at", name="idempotency_key_expiry")]

    def __str__(self) -> str:
        return self.key
