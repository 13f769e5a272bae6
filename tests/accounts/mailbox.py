"""The test's mailbox: sends what the outbox holds and reads what arrived."""

import re

from django.core import mail
from django.utils import timezone

from engarde.accounts import mailer


def deliver(address: str) -> list[str]:
    """Send the mail that is due and return the texts that one address ever got."""
    while mailer.send_due(now=timezone.now()):
        pass
    return [str(message.body) for message in mail.outbox if message.to == [address]]


def token_for(address: str) -> str:
    """Return the token in the newest mail to an address."""
    found = re.search(r"token=(\S+)", deliver(address)[-1])
    assert found
    return found.group(1)
