"""Small JSON files that other processes read, and locks that end with their process."""

import fcntl
import json
import os
from io import TextIOWrapper
from pathlib import Path
from typing import Any


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Replace a file at once, readable by its owner alone."""
    draft = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(value, file, indent=1)
    draft.replace(path)


def read_json(path: Path) -> dict[str, Any]:
    """Return what a file holds; nothing where it is missing or unreadable."""
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


class Lock:
    """A `flock` on a file. It ends when its process does, however it does; children don't inherit it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIOWrapper | None = None

    def try_exclusive(self) -> bool:
        """Take it alone if nobody else has it."""
        return self._try(fcntl.LOCK_EX)

    def try_shared(self) -> bool:
        """Take it with others, if nobody has it alone."""
        return self._try(fcntl.LOCK_SH)

    def release(self) -> None:
        """Give it back; a forked child that shares it keeps it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def is_gone(self) -> bool:
        """Whether the file was deleted under us, so that others lock another one."""
        try:
            return self._file is None or not os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        except FileNotFoundError:
            return True

    def _try(self, kind: int) -> bool:
        file = self.path.open("a")
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._file = file
        return True


def is_locked(path: Path) -> bool:
    """Tell whether somebody holds a lock alone, without disturbing anybody."""
    probe = Lock(path)
    free = path.exists() and probe.try_shared()
    probe.release()
    return path.exists() and not free
