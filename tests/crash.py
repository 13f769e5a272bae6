"""Killing a process between two of its steps: it runs in a process of its own and dies by SIGKILL at a named call."""

import multiprocessing
import os
import signal
import sys
import tempfile
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

LONGEST_SECONDS = 60

# Each is forked from one that is ready: to start Python and Django takes two seconds.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload(["tests.ready"])


def kill_at(target: str, moment: str, code: str) -> None:
    """Run code in a new process that kills itself just before or just after it calls a method.

    Settings are those of the environment as it is when this is first called; code may set others.

    Args:
        target: dotted path of the method.
        moment: "before" or "after".
    """
    with tempfile.NamedTemporaryFile() as said:
        process = _processes.Process(target=_run, args=(target, moment, code, said.name))
        process.start()
        process.join(LONGEST_SECONDS)
        exit_code = process.exitcode
        process.kill()
        assert exit_code == -signal.SIGKILL, f"it did not kill itself: {exit_code}\n{said.read().decode()}"


def _run(target: str, moment: str, code: str, said: str) -> None:
    import tests.ready  # noqa: F401 -- already there, unless it could not be loaded beforehand

    with Path(said).open("w") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
    owner_name, _, name = target.rpartition(".")
    owner = resolve_name(owner_name)
    call = getattr(owner, name)

    def deadly(*args: Any, **kwargs: Any) -> None:
        if moment == "after":
            call(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(owner, name, deadly)
    exec(code, {"__name__": "__main__"})
