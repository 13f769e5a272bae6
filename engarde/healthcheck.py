"""Asks the web process of this container whether it serves, for the image's HEALTHCHECK; run as a file, it needs no package."""

import os
import sys
import urllib.request

SECONDS = 4


def main() -> int:
    """Return 0 when it serves."""
    address = f"http://127.0.0.1:{os.environ.get('PORT') or '8000'}/health/live"
    try:
        with urllib.request.urlopen(address, timeout=SECONDS) as answer:
            return 0 if answer.status == 200 else 1
    except OSError as error:
        sys.stderr.write(f"{address}: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
