"""Signed links: whoever has one may fetch one file for a while, without credentials.

A link names its tenant, so that no row is looked for across tenants, and within a quarter of its life it stays the
same, so that browsers find what they fetched before in their caches.
"""

import math
from datetime import datetime
from uuid import UUID

from django.conf import settings
from django.core.signing import BadSignature, Signer

from engarde.common.problems import Forbidden


class LinkRefused(Forbidden):
    """The link's token is forged, damaged, for another file, or has expired."""

    code, title = "link_refused", "Link refused"


def sign(*, tenant_id: UUID, media_id: UUID, now: datetime) -> str:
    """Return a token that is good for MEDIA_URL_SECONDS, or for up to a quarter less."""
    step = settings.MEDIA_URL_SECONDS / 4
    begin = now.timestamp() // step * step
    expires = math.ceil(begin + settings.MEDIA_URL_SECONDS)
    return _signer().sign(f"{tenant_id.hex}.{media_id.hex}.{expires}")


def tenant_of(*, token: str, media_id: UUID, now: datetime) -> UUID:
    """Return the tenant whose file a token opens.

    Raises:
        LinkRefused: the token does not open this file, or not any more.
    """
    try:
        tenant, media, expires = _signer().unsign(token).split(".")
    except BadSignature as error:
        raise LinkRefused("The link is not valid; ask for the file's facts again to get a new one.") from error
    if media != media_id.hex:
        raise LinkRefused("The link is for another file.")
    if now.timestamp() >= int(expires):
        raise LinkRefused("The link has expired; ask for the file's facts again to get a new one.")
    return UUID(tenant)


def path(*, tenant_id: UUID, media_id: UUID, part: str, now: datetime) -> str:
    """Return the address, from the root on, of a file's `download` or `thumbnail`."""
    return f"/api/content/media/{media_id}/{part}?token={sign(tenant_id=tenant_id, media_id=media_id, now=now)}"


def _signer() -> Signer:
    return Signer(salt="content.media", sep="~")
