"""`manage.py rotate_llm_keys`: encrypt all stored secrets under the newest master key."""

from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandParser
from tqdm import tqdm

from content.webhooks import operations as webhooks
from engarde.accounts import queries as account_queries
from engarde.common import encryption
from engarde.common.commands import JSONCommand
from engarde.common.encryption import Renewal
from generation import keys
from quotas import targets


class Command(JSONCommand):
    """Re-encrypts provider keys, webhook secrets and the addresses of alert targets."""

    help = (
        "Encrypt stored provider keys under the newest key of ENCRYPTION_KEYS, and with them webhook secrets and the "
        "addresses of alert targets. Put the new key first in ENCRYPTION_KEYS, restart, run this, then remove the old "
        "key. Running it again changes nothing. Exit code 1 when a secret cannot be read."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """Take `--dry-run` and `--json`."""
        super().add_arguments(parser)
        parser.add_argument("--dry-run", action="store_true", help="count, and change nothing")

    def run(self, **options: Any) -> dict[str, Any]:
        """Go through all tenants and return how many keys there are, were renewed, and could not be read."""
        dry_run = options["dry_run"]
        done, others = Renewal(), Renewal()
        tenants = account_queries.tenant_ids()
        for tenant_id in tqdm(tenants, desc="Tenants", unit="tenant", disable=True if options["json"] else None):
            done += keys.renew_keys(tenant_id=tenant_id, dry_run=dry_run)
            others += webhooks.renew_secrets(tenant_id=tenant_id, dry_run=dry_run)
            others += targets.renew_addresses(tenant_id=tenant_id, dry_run=dry_run)
        return {
            "dry_run": dry_run,
            "master_key_id": encryption.newest_key_id(),
            **asdict(done),
            "other_secrets": others.total,
            "other_unreadable": others.unreadable,
        }

    def succeeded(self, report: dict[str, Any]) -> bool:
        """Tell whether every secret could be read."""
        return not report["unreadable"] and not report["other_unreadable"]
