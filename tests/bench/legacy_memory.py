"""A migration in a process of its own, which tells how much memory it took. Arguments: the schema of the old tables.

Prints a JSON object: `created`, and `peak`, MB of the process's largest resident set.
"""

import json
import sys
from io import StringIO
from pathlib import Path

import django


def main() -> None:
    """Migrate and print the figures."""
    django.setup()
    from django.conf import settings
    from django.core.management import call_command

    settings.LEGACY_SCHEMA = sys.argv[1]
    out = StringIO()
    call_command("migrate_content_items_to_zerodb", "--json", stdout=out)
    status = Path("/proc/self/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    figures = {"created": json.loads(out.getvalue())["created"], "peak": round(int(kilobytes) / 1024, 1)}
    sys.stdout.write(json.dumps(figures) + "\n")


if __name__ == "__main__":
    main()
