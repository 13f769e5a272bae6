"""Running the blocks of a page as one shell session, as a reader would, and telling what did not go as printed."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from engarde.embedded.paths import PROJECT_ROOT
from tests.docs.pages import Block

PROBLEM = re.compile(r'"status":(\d{3}),"detail"')
BROKEN = re.compile(r"^5\d\d$", re.MULTILINE)  # what `-w '%{http_code}'` prints
PROMISED = re.compile(r"# ([1-5]\d\d)(?: [a-z_]+)?(?=[:;,]|$)", re.MULTILINE)  # not `# 503 when PostgreSQL is away`
ANSWER = re.compile(r"@@guide answer (\d{3})$|^(\d{3})$", re.MULTILINE)
FAILED = re.compile(r"@@guide failed (\d+) in (.*)@@guide: (.*)$", re.MULTILINE)
SAVED_AS = re.compile(r"saved as `([^`]+)`")
MARK = "@@guide"
STAYS = "stays"  # behind the fence: `sh stays` is a program that runs until it is stopped, in a terminal of its own
PORT = re.compile(r"--port (\d+)")
OURS = ("ZERODB_", "BIGQUERY_", "PG")
# Tells of each failed command, and which line of the script had it run: of a function's, the line that calls it.
TELL = rf"""
set -E
guide_failed() {{ echo "{MARK} failed $1 in $(sed -n "${{!#}}p" <<< "$BASH_EXECUTION_STRING"){MARK}: $2"; }}
trap 'guide_failed $? "$BASH_COMMAND" "$LINENO" "${{BASH_LINENO[@]}}"' ERR
"""
CURLRC = f'write-out = "%{{stderr}}{MARK} answer %{{http_code}}\\n"\n'  # for calls without a `-w` of their own


def readers(environment: Mapping[str, str]) -> dict[str, str]:
    """Return what a reader's shell has of an environment: nothing of the services that the tests themselves use."""
    return {name: value for name, value in environment.items() if not name.startswith(OURS)}


def script_of(blocks: Sequence[Block]) -> str:
    """Return the blocks as one script that says where each begins, and which commands fail."""
    parts = [TELL]
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
    with TemporaryDirectory() as home, ThreadPoolExecutor(1) as reader:
        Path(home, ".curlrc").write_text(CURLRC)
        process = subprocess.Popen(
            ["bash", "-c", script_of(blocks).replace("127.0.0.1:8000", f"127.0.0.1:{port}")],
            env={**environment, "PORT": str(port), "CURL_HOME": home},
            cwd=PROJECT_ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        assert process.stdout is not None
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
        for code, line, command in FAILED.findall(printed)
        if not re.search(rf"#.*(exit code {code}\b|\({code}\))", line)
    ]
    statuses = [*PROBLEM.findall(printed), *BROKEN.findall(printed)]
    found += [f"an answer {status}" for status in statuses if status not in page]
    answers = iter([told or shown for told, shown in ANSWER.findall(printed)])
    # `in` goes on behind what it finds, so they have to come in the page's order.
    found += [f"no answer {status}" for status in PROMISED.findall(block.text) if status not in answers]
    found += ["a traceback"] * ("Traceback (most recent call last)" in printed)
    return list(dict.fromkeys(found))  # a failure inside a function is told twice
