"""Writes to and reads of alert targets: Slack, Teams and webhooks that a tenant is told of alerts by."""

from datetime import datetime
from uuid import UUID

import structlog
from django.conf import settings

from engarde.common import encryption, wake
from engarde.common.encryption import Renewal
from engarde.common.paging import Page
from engarde.common.problems import Invalid, NotFound, Problem
from engarde.common.scopes import tenant_scope
from quotas import notifier
from quotas.alerts import SENDER
from quotas.models import AlertDelivery, AlertTarget
from quotas.reservations import lock_usage

log = structlog.get_logger(__name__)

Found = tuple[AlertTarget, AlertDelivery | None]


class TooManyTargets(Problem):
    """The tenant has as many alert targets as it may."""

    status, code, title = 409, "too_many_alert_targets", "Too many alert targets"


def create_target(*, tenant_id: UUID, created_by: UUID, kind: str, url: str, name: str = "") -> AlertTarget:
    """Add a target. Call it outside a scope: it asks DNS.

    Raises:
        Invalid: the URL is not one of that kind, or leads somewhere that may not be called.
        TooManyTargets: there are QUOTA_ALERT_TARGETS_PER_TENANT.
    """
    try:
        notifier.check(kind=kind, url=url)
    except notifier.Refused as error:
        raise Invalid("url", str(error), "address_refused") from error
    with tenant_scope(tenant_id):
        _require_place(tenant_id)
        return AlertTarget.objects.create(
            tenant_id=tenant_id,
            kind=kind,
            name=name,
            url=encryption.encrypt(url),
            url_hint=notifier.hint(url),
            created_by=created_by,
        )


def _require_place(tenant_id: UUID) -> None:
    most = settings.QUOTA_ALERT_TARGETS_PER_TENANT
    # The usage row stands for the tenant: of two requests for the last place, one waits here.
    lock_usage(tenant_id=tenant_id)
    if AlertTarget.objects.filter(tenant_id=tenant_id).count() >= most:
        raise TooManyTargets(f"A tenant may have {most} alert targets; remove one first.")


def renew_addresses(*, tenant_id: UUID, dry_run: bool = False) -> Renewal:
    """Encrypt the addresses of a tenant's targets under the newest key, and tell of how many.

    One that no key reads is left and logged.
    """
    done = Renewal()
    with tenant_scope(tenant_id):
        for target in AlertTarget.objects.select_for_update(no_key=True).filter(tenant_id=tenant_id).order_by("id"):
            try:
                target.url = encryption.renew(target.url)
            except encryption.Unreadable as error:
                log.error("an alert target's address cannot be renewed", target_id=str(target.id), error=str(error))
                done += Renewal(total=1, unreadable=1)
                continue
            done += Renewal(total=1, renewed=1)
            if not dry_run:
                target.save(update_fields=["url"])
    return done


def list_targets(*, tenant_id: UUID, page: int, size: int) -> Page[Found]:
    """Return a page of targets, oldest first, each with the last message to it."""
    with tenant_scope(tenant_id):
        rows = AlertTarget.objects.filter(tenant_id=tenant_id).order_by("id")
        start = (page - 1) * size
        found = list(rows[start : start + size])
        return Page(rows=_with_last(found), number=page, size=size, total=rows.count())


def get_target(*, tenant_id: UUID, target_id: UUID) -> Found:
    """Return a target and the last message to it.

    Raises:
        NotFound: the tenant has no such target.
    """
    with tenant_scope(tenant_id):
        return _with_last([_find(tenant_id, target_id)])[0]


def delete_target(*, tenant_id: UUID, target_id: UUID) -> None:
    """Remove a target with the messages to it.

    Raises:
        NotFound: the tenant has no such target.
    """
    with tenant_scope(tenant_id):
        _find(tenant_id, target_id).delete()


def send_test(*, tenant_id: UUID, target_id: UUID, now: datetime) -> Found:
    """Have a test message sent, once; while one waits to be sent, no second is made.

    Raises:
        NotFound: the tenant has no such target.
    """
    with tenant_scope(tenant_id):
        target = _find(tenant_id, target_id, lock=True)  # of two requests at once, one waits here
        waiting = AlertDelivery.objects.filter(target=target, alert=None, status=AlertDelivery.Status.PENDING).first()
        test = waiting or AlertDelivery.objects.create(
            tenant_id=tenant_id, target=target, created_at=now, next_attempt_at=now
        )
        wake.after_commit(SENDER)
    return target, test


def _find(tenant_id: UUID, target_id: UUID, *, lock: bool = False) -> AlertTarget:
    rows = AlertTarget.objects.filter(tenant_id=tenant_id, id=target_id)
    target = (rows.select_for_update(no_key=True) if lock else rows).first()
    if target is None:
        raise NotFound("alert target")
    return target


def _with_last(found: list[AlertTarget]) -> list[Found]:
    sent = AlertDelivery.objects.filter(target__in=found).order_by("target_id", "-created_at", "-id")
    last = {delivery.target_id: delivery for delivery in sent.distinct("target_id")}
    return [(target, last.get(target.id)) for target in found]
