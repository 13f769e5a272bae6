"""`make test` and `make soak`: the suite in two halves side by side, each with services of its own.

One half mostly waits (for programs that start, stop and die), the other mostly computes, so that together they take little more
than half the time. Arguments are given to both: `python -m tests -m "soak or not soak"`.
"""

import shutil
import signal
import subprocess
import sys
import tempfile

WAITING = ("tests/embedded", "tests/faults", "tests/deployment", "tests/common", "tests/dr")


def main(arguments: list[str]) -> int:
    """Run both halves, show the one as it goes and the other when both are done, and return what failed first."""
    pytest = [sys.executable, "-m", "pytest", *arguments]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # with both halves, not beside them
    with tempfile.TemporaryFile("w+") as said:
        waiting = subprocess.Popen([*pytest, *WAITING], stdout=said, stderr=subprocess.STDOUT)
        try:
            with subprocess.Popen([*pytest, *(f"--ignore={place}" for place in WAITING)]) as computing:
                try:
                    computing.wait()
                    waiting.wait()
                finally:
                    computing.terminate()
        finally:
            waiting.terminate()
            waiting.wait()
            said.seek(0)
            shutil.copyfileobj(said, sys.stdout)
            sys.stdout.flush()
    return computing.returncode or waiting.returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
