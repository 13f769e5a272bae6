"""Sending the mail that transactions decided to send: claim under a lease, send, forget."""

from datetime import datetime, timedelta

import structlog
from django.conf import settings
from django.core.mail import EmailMessage
from django.db import transaction
from django.db.models import F
from django.template.loader import render_to_string

from engarde.accounts import tokens
from engarde.accounts.metrics import MAILS
from engarde.accounts.models import Mail

log = structlog.get_logger(__name__)

BATCH = 50
LEASE = timedelta(minutes=15)  # longer than CELERY_TASK_TIME_LIMIT lets a sender live
LONGEST_WAIT = timedelta(hours=6)
GIVE_UP_AFTER = timedelta(days=3)

SUBJECTS = {
    Mail.Kind.INVITATION: "You are invited to {tenant} on En Garde",
    Mail.Kind.MEMBERSHIP: "You are invited to {tenant} on En Garde",
    Mail.Kind.PASSWORD_RESET: "Set a new password for En Garde",
    Mail.Kind.WEBHOOK_DISABLED: "A webhook of {tenant} was switched off",
    Mail.Kind.GENERATION_ENDED: "A generation job of {tenant}: {headline}",
    Mail.Kind.BACKUP_TROUBLE: "En Garde's backup needs you: {headline}",
    Mail.Kind.BACKUP_WELL: "En Garde's backup is well again",
}


def send_due(*, now: datetime) -> int:
    """Send what is due and return how many went out; what fails is tried again, ever more rarely, for three days.

    Mails are claimed one by one, so that a sender who dies holds up one mail only.
    """
    sent = 0
    for _ in range(BATCH):
        mail = _claim(now)
        if mail is None:
            break
        sent += _send(mail, now)
    return sent


def _claim(now: datetime) -> Mail | None:
    with transaction.atomic():
        due = Mail.objects.select_for_update(skip_locked=True, of=("self",)).select_related("user")
        mail = due.filter(next_attempt_at__lte=now).order_by("next_attempt_at").first()
        if mail is not None:
            Mail.objects.filter(id=mail.id).update(attempts=F("attempts") + 1, next_attempt_at=now + LEASE)
    return mail


def _send(mail: Mail, now: datetime) -> bool:
    try:
        _message(mail).send()
    except Exception as error:  # noqa: BLE001 -- any mailer's error: the row stays and is tried again
        _postpone(mail, now, error)
        return False
    Mail.objects.filter(id=mail.id).delete()
    MAILS.labels("sent").inc()
    return True


def _postpone(mail: Mail, now: datetime, error: Exception) -> None:
    if mail.created_at <= now - GIVE_UP_AFTER:
        Mail.objects.filter(id=mail.id).delete()
        MAILS.labels("given_up").inc()
        log.error("mail given up", mail_id=str(mail.id), kind=mail.kind, error=str(error))
        return
    wait = min(LONGEST_WAIT, timedelta(minutes=1) * 2 ** min(mail.attempts, 10))
    Mail.objects.filter(id=mail.id).update(next_attempt_at=now + wait)
    MAILS.labels("failed").inc()
    log.warning("mail not sent; it will be tried again", mail_id=str(mail.id), kind=mail.kind, error=str(error))


def _message(mail: Mail) -> EmailMessage:
    token = tokens.make_mail_token(mail.user)
    link = settings.PASSWORD_RESET_URL.format(token=token)
    context = {
        "token": token,
        "user": mail.user,
        "tenant": mail.tenant_name,
        "link": link,
        "public_url": settings.PUBLIC_URL,
        "details": mail.details,
    }
    headline = mail.details.get("headline", "")
    subject = SUBJECTS[Mail.Kind(mail.kind)].format(tenant=" ".join(mail.tenant_name.split()), headline=headline)
    text = render_to_string(f"accounts/mail/{mail.kind}.txt", context)
    return EmailMessage(subject, text, to=[mail.user.email])
