"""The platform's Celery application with a task that does not end by itself, for tests of a worker's end."""

import os
import signal
import time
from pathlib import Path
from typing import Any

from engarde.celery import app
from engarde.common import stopping

stopping.BREAK_OFF_SECONDS = float(os.environ.get("STUBBORN_SECONDS", stopping.BREAK_OFF_SECONDS))


@app.task(name="tests.stubborn")
def stubborn(*, begun: str, is_deaf: bool, **_: Any) -> None:
    """Note that it began, then be busy whatever the worker is told; a deaf one hears no SIGTERM either."""
    if is_deaf:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with Path(begun).open("a") as file:
        file.write("begun\n")
    time.sleep(100)
