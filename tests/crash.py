"""Killing a process between two of its steps: it runs in a process of its own and dies by SIGKILL at a named call."""

import signal
import subprocess
import sys
from textwrap import dedent

SCRIPT = """
import os, signal
from pkgutil import resolve_name

import django

django.setup()

owner, _, name = {target!r}.rpartition(".")
owner = resolve_name(owner)
call = getattr(owner, name)

def deadly(*args, **kwargs):
    if {moment!r} == "after":
        call(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)

setattr(owner, name, deadly)
{code}
"""


def kill_at(target: str, moment: str, code: str) -> None:
    """Run code in a new process that kills itself just before or just after it calls a method.

    Args:
        target: dotted path of the method.
        moment: "before" or "after".
    """
    script = dedent(SCRIPT).format(target=target, moment=moment, code=code)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL, f"it was not killed: {done.returncode}\n{done.stderr}"
