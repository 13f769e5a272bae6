"""The emulator's own virtual environment: it pins an older protobuf than Google's current clients."""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
HOME = Path(sys.prefix) / "bigquery-emulator"


def python() -> Path:
    """Return the interpreter that runs the launcher; it may not exist yet."""
    return HOME / "bin" / "python"


def is_current() -> bool:
    """Tell whether the environment holds what the requirements name now."""
    stamp = HOME / "installed"
    return stamp.is_file() and stamp.read_text() == _fingerprint() and python().exists()


def install(say: Callable[[str], None]) -> None:
    """Make the environment anew if the requirements changed; two at once take turns.

    Raises:
        subprocess.CalledProcessError: pip failed; its words are on stderr.
    """
    with HOME.with_name("bigquery-emulator.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_current():
            return
        say("Installing the BigQuery emulator into its own environment ...")
        shutil.rmtree(HOME, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", HOME], check=True)
        subprocess.run([python(), "-m", "pip", "install", "--quiet", "--requirement", REQUIREMENTS], check=True)
        (HOME / "installed").write_text(_fingerprint())


def _fingerprint() -> str:
    return hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
