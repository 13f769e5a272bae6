"""Asks the web process of this container whether it serves, for the image's HEALTHCHECK; run as a file, it needs no package."""

import os
import sys
import urllib.request

SECONDS = 4


def host(allowed: str) -> str:
    """Return a name that ALLOWED_HOSTS lets in: the server answers no request for another."""
    first = allowed.split(",", maxsplit=1)[0].strip().removeprefix(".")
    return first if first not in ("", "*") else "localhost"


def main() -> int:
    """Return 0 when it serves."""
    address = f"http://127.0.0.1:{os.environ.get('PORT', '8000')}/health/live"
    request = urllib.request.Request(address, headers={"Host": host(os.environ.get("ALLOWED_HOSTS", ""))})
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310 -- this machine, by HTTP
            return 0 if answer.status == 200 else 1
    except OSError as error:
        sys.stderr.write(f"{address}: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
