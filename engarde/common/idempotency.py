"""Idempotency keys: a request sent twice under one key does its work once, and gets its first answer again.

A key is claimed before the work, in a transaction of its own. The answer is kept by the transaction that does the work, so
there is never one without the other. What fails frees the key; a process that dies leaves it claimed for ten minutes at most.
"""

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import zstandard
from django.db import connection
from uuid_utils.compat import uuid7

from engarde.common import json
from engarde.common.models import IdempotencyKey
from engarde.common.problems import Invalid, Problem
from engarde.common.scopes import system_scope, tenant_scope

KEPT = timedelta(hours=24)
LONGEST_WORK = timedelta(minutes=10)
KEY = re.compile(r"[\x21-\x7e]{1,255}")
MAX_BODY_BYTES = 64 * 1024**2
CLAIM = """
INSERT INTO idempotency_keys (tenant_id, key, token, fingerprint, locked_until, expires_at, headers)
VALUES (%(tenant)s, %(key)s, %(token)s, %(fingerprint)s, %(locked_until)s, %(expires_at)s, '{}')
ON CONFLICT (tenant_id, key) DO UPDATE
SET token = excluded.token, fingerprint = excluded.fingerprint, locked_until = excluded.locked_until,
    expires_at = excluded.expires_at, status = NULL, headers = '{}', body = NULL
WHERE idempotency_keys.expires_at <= %(now)s
   OR (idempotency_keys.status IS NULL AND idempotency_keys.locked_until <= %(now)s)"""


class InProgress(Problem):
    """The first request under the key is still being worked on."""

    status, code, title = 409, "idempotency_in_progress", "Request in progress"


class Mismatch(Problem):
    """The key was used for another request."""

    status, code, title = 422, "idempotency_mismatch", "Idempotency key reused"


class Overtaken(Problem):
    """The work took so long that another request under the key took over; nothing of it was stored."""

    status, code, title = 409, "idempotency_overtaken", "Request overtaken"


@dataclass(frozen=True, slots=True)
class Kept:
    """The first answer under a key.

    Attributes:
        fingerprint: of the request that it answered.
    """

    fingerprint: bytes
    status: int
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to answer under a key."""

    tenant_id: UUID
    key: str
    token: UUID

    def keep(self, *, fingerprint: bytes, status: int, headers: dict[str, str], body: Any) -> None:
        """Inside the tenant's scope, in the transaction that does the work, keep its answer.

        Raises:
            Overtaken: another request took the key over; the transaction must not commit.
        """
        mine = IdempotencyKey.objects.filter(tenant_id=self.tenant_id, key=self.key, token=self.token, status=None)
        packed = zstandard.compress(json.dumps(body))
        if not mine.update(fingerprint=fingerprint, status=status, headers=headers, body=packed):
            raise Overtaken("The request took too long and was sent again meanwhile; nothing was stored by this one.")

    def release(self) -> None:
        """Free the key unless an answer is kept under it."""
        with tenant_scope(self.tenant_id):
            IdempotencyKey.objects.filter(
                tenant_id=self.tenant_id, key=self.key, token=self.token, status=None
            ).delete()


@dataclass(slots=True)
class Attempt:
    """One request under a key, or under none; then nothing is kept.

    Attributes:
        kept: the first answer, when there is one: give it again and do nothing.
    """

    fingerprint: bytes
    claim: Claim | None = None
    kept: Kept | None = None

    def keep(self, *, status: int, headers: dict[str, str], body: Any) -> None:
        """Inside the tenant's scope, in the transaction that does the work, keep its answer.

        Raises:
            Overtaken: see `Claim.keep`.
        """
        if self.claim:
            self.claim.keep(fingerprint=self.fingerprint, status=status, headers=headers, body=body)


def key_of(request: Any) -> str | None:
    """Return the key that a request carries, if any.

    Raises:
        Invalid: it is not 1 to 255 printable ASCII characters without spaces.
    """
    key: str | None = request.headers.get("Idempotency-Key")
    if key is not None and not KEY.fullmatch(key):
        raise Invalid("Idempotency-Key", "1 to 255 printable ASCII characters without spaces.")
    return key


def fingerprint_of(*parts: Any) -> bytes:
    """Return what tells a request from another: SHA-256 of its parts, as canonical JSON."""
    return hashlib.sha256(json.canonical([_plain(part) for part in parts]).encode()).digest()


def _plain(part: Any) -> Any:
    return part if isinstance(part, dict | list | str | int | None) else str(part)


@contextmanager
def attempt(*, tenant_id: UUID, key: str | None, fingerprint: bytes, now: datetime) -> Iterator[Attempt]:
    """Work under a key inside the block; an exception, or an answer that was not kept, frees it.

    Raises:
        InProgress: the first request is still being worked on.
        Mismatch: the key was used for another request.
    """
    if key is None:
        yield Attempt(fingerprint)
        return
    claimed = claim(tenant_id=tenant_id, key=key, fingerprint=fingerprint, now=now)
    if isinstance(claimed, Kept):
        require_same(claimed, fingerprint)
        yield Attempt(fingerprint, kept=claimed)
        return
    with released(claimed):
        yield Attempt(fingerprint, claim=claimed)


@contextmanager
def released(claimed: Claim) -> Iterator[None]:
    """Free a claimed key at the end of the block unless an answer is kept by then."""
    try:
        yield
    finally:
        claimed.release()


def claim(*, tenant_id: UUID, key: str, fingerprint: bytes | None, now: datetime) -> Claim | Kept:
    """Claim a key for a request, or return the first answer under it.

    Args:
        fingerprint: None when it is known only after a stream was read; then compare with `require_same` later.

    Raises:
        InProgress: the first request is still being worked on.
        Mismatch: it is being worked on, and was another request.
    """
    claimed = Claim(tenant_id, key, uuid7())
    values: dict[str, Any] = {
        "tenant": tenant_id,
        "key": key,
        "token": claimed.token,
        "fingerprint": fingerprint,
        "now": now,
        "locked_until": now + LONGEST_WORK,
        "expires_at": now + KEPT,
    }
    with tenant_scope(tenant_id):
        with connection.cursor() as cursor:
            cursor.execute(CLAIM, values)
            if cursor.rowcount:
                return claimed
        row = IdempotencyKey.objects.filter(tenant_id=tenant_id, key=key).first()
    if row is None or row.status is None:
        if row and fingerprint and row.fingerprint and bytes(row.fingerprint) != fingerprint:
            raise _mismatch()
        raise InProgress("The first request with this key is still running.", headers={"Retry-After": "1"})
    body = zstandard.decompress(bytes(row.body or b""), max_output_size=MAX_BODY_BYTES)
    return Kept(bytes(row.fingerprint or b""), row.status, row.headers, body)


def require_same(kept: Kept, fingerprint: bytes) -> None:
    """Check that a kept answer belongs to this request.

    Raises:
        Mismatch: it was another request.
    """
    if kept.fingerprint != fingerprint:
        raise _mismatch()


def _mismatch() -> Mismatch:
    return Mismatch("The key was used with another body, or at another address, within the last 24 hours.")


def forget_expired(*, now: datetime, limit: int) -> int:
    """Remove keys whose time is over, at most `limit`, and return how many there were."""
    with system_scope("forget idempotency keys"):
        old = IdempotencyKey.objects.filter(expires_at__lte=now).values_list("pk", flat=True)[:limit]
        return IdempotencyKey.objects.filter(pk__in=list(old)).delete()[0]
