"""`manage.py create_tenant`: a customer with an owner, a brand and an API key."""

from typing import Any

from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser
from django.core.validators import validate_email
from django.utils import timezone

from engarde.common.commands import JSONCommand
from quotas import operations

MAX_EMAIL = 254
MAX_TEXT = 200


class Command(JSONCommand):
    """Makes a tenant and prints its ids and the API key, which is shown this once."""

    help = "Create a tenant with an owner, a first brand and an API key that has every scope (shown this once)."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take the tenant's name, plan and owner."""
        super().add_arguments(parser)
        parser.add_argument("--name", required=True, help="the tenant's name")
        parser.add_argument("--tier", default="free", help="free, starter, professional, business or enterprise")
        parser.add_argument("--email", required=True, help="the owner's e-mail address")
        parser.add_argument("--password", required=True, help="the owner's password")
        parser.add_argument("--brand", metavar="NAME", help="the first brand's name (default: the tenant's)")
        parser.add_argument("--storage-limit", type=int, metavar="BYTES", help="replaces the plan's limit")
        parser.add_argument("--time-zone", default="UTC", metavar="NAME", help="such as Europe/Berlin (default: UTC)")

    def run(self, **options: Any) -> dict[str, Any]:
        """Make the tenant.

        Raises:
            CommandError: a name, address or password is missing or malformed.
        """
        _check(options)
        new = operations.create_tenant(
            name=options["name"].strip(),
            tier=options["tier"],
            email=options["email"],
            password=options["password"],
            brand_name=(options["brand"] or options["name"]).strip(),
            storage_limit=options["storage_limit"],
            now=timezone.now(),
            time_zone=options["time_zone"],
        )
        return {
            "tenant_id": str(new.tenant.id),
            "brand_id": str(new.brand.id),
            "user_id": str(new.owner.id),
            "api_key": new.api_key,
        }


def _check(options: dict[str, Any]) -> None:
    try:
        validate_email(options["email"])
    except ValidationError as error:
        raise CommandError(f"--email: {options['email']!r} is not an e-mail address.") from error
    if len(options["email"]) > MAX_EMAIL:
        raise CommandError(f"--email: at most {MAX_EMAIL} characters.")
    for option in ("name", "password", "brand"):
        value = options[option]
        if value is not None and (not value.strip() or len(value) > MAX_TEXT or "\0" in value):
            raise CommandError(f"--{option} needs 1 to 200 characters.")
