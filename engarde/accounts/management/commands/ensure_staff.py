"""`manage.py ensure_staff`: the first login for the admin."""

import secrets
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.management.base import CommandError, CommandParser
from django.core.validators import validate_email
from django.utils import timezone

from engarde.accounts import operations
from engarde.common.commands import JSONCommand


class Command(JSONCommand):
    """Makes a staff account if there is none, and prints its e-mail address and password."""

    help = "Make the staff account for the admin (kept if it is there) and print how to log in."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take an address and, if wanted, a password."""
        super().add_arguments(parser)
        parser.add_argument("--email", default="admin@engarde.local")
        parser.add_argument("--password", help="default: made at random and kept in DATA_DIR/admin-password")

    def run(self, **options: Any) -> dict[str, Any]:
        """Make the account and return its e-mail address and password."""
        password = options["password"] or _kept_password(settings.DATA_DIR / "admin-password")
        try:
            validate_email(options["email"])
        except ValidationError as error:
            raise CommandError(f"{options['email']!r} is not an e-mail address.") from error
        user = operations.ensure_staff(
            email=options["email"], password=password, reset=bool(options["password"]), now=timezone.now()
        )
        return {"email": user.email, "password": password if user.check_password(password) else None}


def _kept_password(path: Path) -> str:
    if not path.exists() or not path.stat().st_size:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(12), encoding="utf-8")
    return path.read_text(encoding="utf-8").strip()
