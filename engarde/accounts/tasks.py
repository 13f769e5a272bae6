"""Celery's envelopes: one call each."""

from typing import Any

from celery import shared_task
from django.utils import timezone

from engarde.accounts import mailer, operations


@shared_task(name="accounts.send_mail")
def send_mail(**_: Any) -> None:
    """Send the mail that is due."""
    mailer.send_due(now=timezone.now())


@shared_task(name="accounts.drop_spent_sessions")
def drop_spent_sessions(**_: Any) -> None:
    """Delete sessions that are over."""
    operations.drop_spent_sessions(now=timezone.now())
