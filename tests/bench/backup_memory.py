"""A restore in a process of its own, which tells how much memory it took. Arguments: the tenant's id.

Prints a JSON object: `idle` before the restore and `peak` after it, both MB of the process's largest resident set, and
`items` and `seconds`.
"""

import json
import sys
import time
from pathlib import Path
from uuid import UUID

import django


def main() -> None:
    """Restore and print the figures."""
    django.setup()
    from tests.bench import backup_items, backup_rows

    tenant_id = UUID(sys.argv[1])
    backup_items.archive().highest_epoch()  # so that clients and connections are there
    idle, begun = _resident(), time.perf_counter()
    done = backup_rows.bring_back(tenant_id)
    figures = {
        "idle": idle,
        "peak": _resident(),
        "items": done.items,
        "seconds": round(time.perf_counter() - begun, 1),
    }
    sys.stdout.write(json.dumps(figures) + "\n")


def _resident() -> float:
    """Return MB of the largest resident set since this program began.

    Not by `getrusage`, whose figure a child takes over from its parent.
    """
    status = Path("/proc/self/status").read_text()
    kilobytes = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return round(int(kilobytes) / 1024, 1)


if __name__ == "__main__":
    main()
