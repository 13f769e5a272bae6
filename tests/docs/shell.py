"""Running the blocks of a page as one shell session, as a reader would, and telling what did not go as printed."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from engarde.embedded.paths import PROJECT_ROOT
from tests.docs.pages import Block

PROBLEM = re.compile(r'"status":(\d{3}),"detail"')
PROMISED = re.compile(r"# (4\d\d)\b")
FAILED = re.compile(r"^@@guide failed (\d+): (.*)$", re.MULTILINE)
SAVED_AS = re.compile(r"saved as `([^`]+)`")
MARK = "@@guide"
STAYS = "stays"  # behind the fence: `sh stays` is a program that runs until it is stopped, in a terminal of its own
PORT = re.compile(r"--port (\d+)")


def script_of(blocks: Sequence[Block]) -> str:
    """Return the blocks as one script that says where each begins, and which commands fail."""
    parts = ["set -E", f"trap 'echo \"{MARK} failed $?: $BASH_COMMAND\"' ERR"]
    for number, block in enumerate(blocks):
        parts += [f'echo; echo "{MARK} block {number}"', *_commands(block)]
    return "\n".join([*parts, f'echo; echo "{MARK} end"', ""])


def _commands(block: Block) -> Iterator[str]:
    if block.kind == "python":
        saved = SAVED_AS.search(block.before)
        yield f"{f'cat > {saved[1]}' if saved else '.venv/bin/python -'} <<'GUIDE_PY'\n{block.text}GUIDE_PY"
    elif block.kind.endswith(STAYS):
        if port := PORT.search(block.text):  # without one it is `make up`, which runs already
            yield f"{{\n{block.text}}} &\nuntil (echo > /dev/tcp/127.0.0.1/{port[1]}) 2>/dev/null; do sleep 0.2; done"
    else:
        yield block.text


def run(blocks: Sequence[Block], *, environment: Mapping[str, str], port: int, seconds: float) -> list[str]:
    """Run a page's blocks in the checkout, with the platform on another port, and return what each printed.

    Raises:
        subprocess.TimeoutExpired: it took longer.
    """
    process = subprocess.Popen(
        ["bash", "-c", script_of(blocks).replace("127.0.0.1:8000", f"127.0.0.1:{port}")],
        env={**environment, "PORT": str(port)},
        cwd=PROJECT_ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    assert process.stdout is not None
    with ThreadPoolExecutor(1) as reader:
        output = reader.submit(process.stdout.read)
        try:
            process.wait(timeout=seconds)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)  # and what the page left running, which holds the pipe open
        printed = output.result()
    pieces = re.split(rf"^{MARK} (?:block \d+|end)$", printed, flags=re.MULTILINE)
    assert len(pieces) == len(blocks) + 2, f"it ended early:\n{printed[-3000:]}"
    return [piece.strip() for piece in pieces[1:-1]]


def surprises(block: Block, printed: str) -> list[str]:
    """Return what a block did that the page does not say (failed commands, refusals, tracebacks), or says and it did not."""
    page = block.text + block.said
    found = [
        f"exit code {code}: {command}"
        for code, command in FAILED.findall(printed)
        if f"({code})" not in page and f"exit code {code}" not in page
    ]
    found += [f"an answer {status}" for status in PROBLEM.findall(printed) if status not in page]
    found += [f"no answer {status}" for status in PROMISED.findall(block.text) if status not in printed]
    found += ["a traceback"] * ("Traceback (most recent call last)" in printed)
    return list(dict.fromkeys(found))  # a failure inside a function is told twice
