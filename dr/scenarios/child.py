"""The process in which a scenario is played: `python -m dr.scenarios.child NAME --items N`.

Its environment leads to throw-away places only (`stage` makes it), and it makes sure of that before it does anything. It
tells of its steps, and at last of the outcome, in lines of JSON on stdout. Its stdin is its parent: it ends with that.
"""

import argparse
import os
import sys
import threading
from collections.abc import Callable

import django
from django.utils.module_loading import import_string


def main() -> int:
    """Play the scenario and return the exit code."""
    parser = argparse.ArgumentParser(
        description="Started by test_dr_scenario and the weekly drill; not to be run by hand."
    )
    parser.add_argument("name")
    parser.add_argument("--items", type=int, default=0)
    options = parser.parse_args()
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "engarde.settings")
    django.setup()
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    play: Callable[..., int] = import_string("dr.scenarios.playing.play")  # needs Django to be set up
    return play(name=options.name, items=options.items, tell=_tell)


def _end_with_parent() -> None:
    sys.stdin.read()
    os._exit(1)


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
