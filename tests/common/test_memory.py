"""Threads share few of the allocator's arenas, in whatever process the platform runs."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

# Asks glibc itself, whose malloc_info(3) writes an element `heap` for each arena.
COUNT = """
import ctypes, sys, threading
{first}
together = threading.Barrier(8)

def allocate():
    bytearray(100_000)
    together.wait()

threads = [threading.Thread(target=allocate) for _ in range(8)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
libc = ctypes.CDLL(None)
libc.fopen.restype = ctypes.c_void_p
file = ctypes.c_void_p(libc.fopen(sys.argv[1].encode(), b"w"))
libc.malloc_info(0, file)
libc.fclose(file)
"""


def arenas(first: str, file: Path, **variables: str) -> int:
    environ = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"} | variables
    code = COUNT.format(first=first)
    subprocess.run([sys.executable, "-c", code, str(file)], env=environ, check=True)
    return file.read_text().count("<heap nr=")


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have other allocators")
def test_threads_share_two_arenas_unless_the_environment_says_otherwise(tmp_path: Path) -> None:
    assert arenas("import engarde", tmp_path / "ours") <= 2
    assert arenas("import engarde", tmp_path / "told", MALLOC_ARENA_MAX="6") > 2
    assert arenas("", tmp_path / "plain") > 2
