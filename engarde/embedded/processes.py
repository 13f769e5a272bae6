"""Finding and ending processes that are ours, whatever became of the one that started them."""

import ctypes
import os
import shutil
import signal
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import psutil

PR_SET_CHILD_SUBREAPER = 36


def tie_to_parent(command: Sequence[str | Path], stop_signal: signal.Signals) -> list[str]:
    """Return the command that runs `command` and gets `stop_signal` when the thread that started it ends.

    `setpriv` rather than a preexec hook: a hook in a process with threads may hang. Without it nothing is tied, and
    the next start finds what is left over.
    """
    words = [str(word) for word in command]
    setpriv = shutil.which("setpriv")
    return [setpriv, "--pdeathsig", stop_signal.name.removeprefix("SIG"), "--", *words] if setpriv else words


def strays(executable: Path, folder: Path) -> list[psutil.Process]:
    """Return the processes that run `executable` in `folder`, which only a service does; also after the folder went."""
    return list(_running(os.path.realpath(executable), {str(folder), f"{folder} (deleted)"}))


def _running(executable: str, folders: Collection[str]) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.cwd() in folders and process.exe() == executable and process.pid != os.getpid():
                yield process
        except psutil.Error:
            continue


def end(processes: Collection[psutil.Process], stop_signal: signal.Signals, seconds: float) -> None:
    """Ask processes to stop, and kill those that don't within `seconds`."""
    for process in processes:
        _signal(process, stop_signal)
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    for process in alive:
        _signal(process, signal.SIGKILL)
    psutil.wait_procs(alive, timeout=2)


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    try:
        process.send_signal(number)
    except psutil.Error:
        return


def kill_group(leader: int) -> None:
    """Kill what a dead program left in its process group."""
    try:
        os.killpg(leader, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def is_same(pid: int, created: float) -> bool:
    """Tell whether `pid` still is the process that was created at `created` (Unix seconds)."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 1 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def adopt_orphans() -> None:
    """Become the parent of grandchildren whose parent dies, so that `bury_orphans` can clear them away."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def bury_orphans(children: Collection[int]) -> None:
    """Clear away dead orphans; `children` are left to those who wait for them, and so is our own session."""
    for process in psutil.Process().children():
        try:
            if process.pid not in children and os.getsid(process.pid) != os.getsid(0):
                os.waitpid(process.pid, os.WNOHANG)
        except OSError:
            continue


def wait_until_dead(pid: int, created: float, seconds: float) -> bool:
    """Wait for a process that need not be our child."""
    deadline = time.monotonic() + seconds
    while is_same(pid, created):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
