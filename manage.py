#!/usr/bin/env python
"""Django's command line; without DATABASE_URL and the like it runs on the embedded services of this checkout."""

import os
import sys

from django.core.management import execute_from_command_line

from engarde.embedded import session


def main() -> None:
    """Run a management command, with the embedded services it needs."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "engarde.settings")
    with session.for_command(sys.argv, os.environ):
        execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
