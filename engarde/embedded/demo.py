"""`make demo`: the main job, end to end, as a user would do it: HTTP calls and management commands, real services.

A tenant, a few hundred real documents, all of them read back, a few texts generated on the local model, all of it backed up; then
the document store's data is destroyed, reads still answer from the backup, everything is restored and verified byte for byte.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import requests
from tqdm import tqdm
from websockets.sync.client import connect

from engarde.embedded import session
from engarde.embedded.paths import PROJECT_ROOT, DataDir
from engarde.embedded.up import DEFAULT_PORT

DOCUMENTS = 300
LARGEST_DOCUMENT = 256 * 1024
TEXTS = 8
TOPICS = ["fresh bread", "a garden in spring", "a repaired bicycle", "tea on a rainy day"]
GENERATION_SECONDS = 300.0
NO_MODEL = {"llm_not_configured", "llm_unavailable"}
READERS = 4
START_SECONDS = 120.0
CATCH_UP_SECONDS = 120.0
TEXT_FILES = ("*.md", "*.rst", "*.txt", "METADATA")


class DemoFailed(Exception):
    """A step did not end as promised."""


class Demo:
    """One run against one platform."""

    def __init__(self, url: str, data: Path) -> None:
        self.url = url
        self.data = data
        self.http = requests.Session()
        self.tenant_id = ""
        self.sent: dict[str, str] = {}

    def run(self) -> dict[str, Any]:
        """Do every step and return the report.

        Raises:
            DemoFailed: naming the step and what was wrong.
        """
        self._step("A tenant with an owner, a brand and an API key", self._make_tenant)
        imported = self._step("Real documents become content", self._import)
        self._step("Every document comes back over HTTP as it was sent", lambda: self._read_all({"spool", "zerodb"}))
        generated = self._step("A batch is written by the local model, watched over the WebSocket", self._generate)
        rpo = self._step("All three tiers have caught up", self._catch_up)
        self._step("PostgreSQL, ZeroDB and BigQuery agree", self._verify)
        self._step("DISASTER: ZeroDB's data is destroyed", self._destroy_document_store)
        disaster = time.monotonic()
        everywhere = {"spool", "zerodb", "backup"}
        self._step("Reads still answer, from copies and the backup", lambda: self._read_all(everywhere))
        self._step("Everything is restored from BigQuery", self._restore)
        self._step("PostgreSQL, ZeroDB and BigQuery agree again", self._verify)
        rto = time.monotonic() - disaster
        self._step("Every document comes back from ZeroDB as it was sent", lambda: self._read_all({"zerodb"}))
        return {
            "ok": True,
            "items": len(self.sent),
            "bytes": imported["bytes"],
            "import_items_per_second": imported["items_per_second"],
            "generated": generated,
            "lost": 0,
            "mismatched": 0,
            "rto_seconds": round(rto, 2),
            "rpo_seconds": round(rpo, 2),
        }

    def _step(self, title: str, work: Callable[[], Any]) -> Any:
        started = time.monotonic()
        try:
            result = work()
        except (requests.RequestException, subprocess.SubprocessError, OSError) as error:
            raise DemoFailed(f"{title}: {error}") from error
        say(f"  ✓ {title}  ({time.monotonic() - started:.1f} s)")
        return result

    def _make_tenant(self) -> None:
        email = f"demo-{uuid4().hex[:8]}@example.com"
        who = ["--email", email, "--password", uuid4().hex]
        new = self._manage("create_tenant", "--name", "Demo studio", "--tier", "professional", *who)
        self.tenant_id = new["tenant_id"]
        self.http.headers["X-API-Key"] = new["api_key"]

    def _import(self) -> dict[str, Any]:
        with tempfile.TemporaryDirectory() as folder:
            count = collect_documents(Path(folder))
            say(f"    {count} documents: the project's own and those of the installed packages")
            report = self._manage("import_content", folder, "--tenant", self.tenant_id, progress=True)
            expect(
                report["created"] == count and not report["failed"], f"not all were imported: {report['errors'][:3]}"
            )
            self.sent = self._bodies_by_id(Path(folder))
        expect(len(self.sent) == count, f"{count} were imported and {len(self.sent)} are listed")
        return report

    def _bodies_by_id(self, folder: Path) -> dict[str, str]:
        """Return the checksum of the file behind each listed item."""
        found = {}
        for summary in self._all_summaries():
            body = (folder / summary["metadata"]["imported_from"]).read_bytes()
            found[summary["id"]] = hashlib.sha256(body).hexdigest()
        return found

    def _all_summaries(self) -> Iterator[dict[str, Any]]:
        page = 1
        while page:
            answer = self._get("/api/content", page=page, pageSize=100)
            yield from answer["data"]
            page = page + 1 if answer["pagination"]["hasNext"] else 0

    def _read_all(self, tiers: set[str]) -> None:
        """Read every item and compare its bytes with the file that it came from."""
        with ThreadPoolExecutor(READERS) as pool:
            items = pool.map(lambda item_id: self._get(f"/api/content/{item_id}"), self.sent)
            for item in tqdm(items, total=len(self.sent), desc="    read", unit="item", leave=False):
                body = hashlib.sha256(item["body"].encode()).hexdigest()
                expect(body == self.sent[item["id"]], f"item {item['id']} is not what was sent")
                tier = item["storage"]["tier"]
                expect(tier in tiers, f"item {item['id']} came from {tier}, not from {' or '.join(tiers)}")

    def _generate(self) -> int:
        """Run a job on the local model, with a progress bar, and return how many texts it wrote; 0 where there is no model."""
        params = {"prompt_template": "Write a friendly post about {topic}.", "topics": TOPICS, "length": "short"}
        wanted = {"content_type": "post", "target_count": TEXTS, "provider": "local", "max_tokens": 600}
        body = {**wanted, "generation_params": params}
        answer = self.http.post(f"{self.url}/api/content/generate-batch", json=body, timeout=60)
        if answer.status_code != 202 and answer.json()["code"] in NO_MODEL:
            say(f"    left out: {answer.json()['detail']}")
            return 0
        expect(answer.status_code == 202, f"the job was not queued: {answer.text[:300]}")
        job = self._watch(answer.json()["job_id"])
        expect(job["progress"] + job["failed"] == TEXTS, f"the job ended as {job['status']}: {job['error_message']}")
        expect(job["progress"] > 0, f"not one text was written: {job['errors']}")
        texts = {item_id: self._get(f"/api/content/{item_id}") for item_id in job["generated_content_ids"]}
        for item_id, item in texts.items():
            self.sent[item_id] = hashlib.sha256(item["body"].encode()).hexdigest()
        first = " ".join(next(iter(texts.values()))["body"].split())
        say(f"    {job['progress']} written, {job['failed']} failed; the first: {first[:100]}")
        return int(job["progress"])

    def _watch(self, job_id: str) -> dict[str, Any]:
        """Show a job's progress as its WebSocket tells it, and return the job as it ended."""
        address = f"{self.url.replace('http', 'ws', 1)}/ws/generation-jobs/{job_id}?after=0"
        headers = {"X-API-Key": str(self.http.headers["X-API-Key"])}
        deadline = time.monotonic() + GENERATION_SECONDS
        with (
            connect(address, additional_headers=headers) as line,
            tqdm(total=TEXTS, desc="    write", unit="text") as bar,
        ):
            for message in line:
                told = json.loads(message)
                bar.update(told["type"] == "item")
                if told["type"] == "done":
                    return dict(told)
                expect(time.monotonic() < deadline, "the job did not end")
        raise DemoFailed("the WebSocket ended before the job did")

    def _catch_up(self) -> float:
        """Wait until no document is only spooled and none not backed up; return the longest wait for the backup, in seconds."""
        deadline = time.monotonic() + CATCH_UP_SECONDS
        while True:
            summaries = list(self._all_summaries())
            storage = [summary["storage"] for summary in summaries]
            if all(each["zerodb_id"] and each["bigquery_backed_up"] for each in storage):
                break
            expect(time.monotonic() < deadline, "the carriers did not catch up; see the worker's log")
            time.sleep(0.5)
        return max(
            (_time(each["storage"]["bigquery_last_sync_at"]) - _time(each["updated_at"])).total_seconds()
            for each in summaries
        )

    def _destroy_document_store(self) -> None:
        """Delete the folder of the embedded ZeroDB, and kill its processes so that nothing is left in their memory."""
        folder = DataDir.at(self.data).folder("zerodb")
        expect(folder.is_dir(), f"{folder} is not there: the demo destroys the embedded ZeroDB only, never a real one")
        victims = [process for process in psutil.process_iter() if _serves(process, folder)]
        expect(bool(victims), "the embedded ZeroDB does not run")
        shutil.rmtree(folder)
        for process in victims:
            process.kill()
        self._wait_for("zerodb")

    def _wait_for(self, check: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while requests.get(f"{self.url}/health", timeout=30).json()["checks"][check] != "ok":
            expect(time.monotonic() < deadline, f"{check} did not come back")
            time.sleep(0.2)

    def _restore(self) -> None:
        # What was read from the backup meanwhile was queued for repair by that, so how many are left to restore varies.
        self._manage("restore_from_bigquery", progress=True)
        self._catch_up()

    def _verify(self) -> None:
        report = self._manage("verify_backup_integrity", "--tenant", self.tenant_id)
        expect(report["checked"] == len(self.sent), f"{report['checked']} of {len(self.sent)} items were checked")

    def _get(self, path: str, **query: Any) -> Any:
        answer = self.http.get(self.url + path, params=query, timeout=60)
        while answer.status_code == 429:  # a tenant may read so often a second, and the demo reads as fast as it can
            time.sleep(max(0.2, float(answer.headers.get("Retry-After", 0))))
            answer = self.http.get(self.url + path, params=query, timeout=60)
        expect(answer.ok, f"GET {path} answered {answer.status_code}: {answer.text[:300]}")
        return answer.json()

    def _manage(self, *arguments: str, progress: bool = False) -> dict[str, Any]:
        """Run a management command and return its report; with `progress`, show its progress bar."""
        with tempfile.TemporaryDirectory() as folder:
            report = Path(folder, "report.json")
            wanted = ["--report", str(report)] if progress else ["--json"]
            done = subprocess.run(
                [sys.executable, str(PROJECT_ROOT / "manage.py"), *arguments, *wanted],
                env={**session.environment(), "DATA_DIR": str(self.data)},
                cwd=PROJECT_ROOT,
                stdout=subprocess.PIPE,
                stderr=None if progress else subprocess.PIPE,
                text=True,
                check=False,
            )
            expect(
                done.returncode == 0, f"manage.py {arguments[0]} failed: {(done.stdout + (done.stderr or ''))[-2000:]}"
            )
            return dict(json.loads(report.read_text() if progress else done.stdout))


def collect_documents(folder: Path) -> int:
    """Copy real text documents into a folder, as Markdown or text files, and return how many there are."""
    kept: set[str] = set()
    for path in _text_files():
        if len(kept) == DOCUMENTS:
            break
        text = _readable(path)
        digest = hashlib.sha256(text).hexdigest()
        if text and digest not in kept and not text.startswith(b"---"):
            suffix = path.suffix if path.suffix in {".md", ".rst", ".txt"} else ".txt"
            (folder / f"{len(kept):04d}-{path.parent.name}-{path.stem}{suffix}").write_bytes(text)
            kept.add(digest)
    return len(kept)


def _text_files() -> Iterator[Path]:
    packages = Path(os.__file__).parent, *map(Path, sys.path[1:])
    yield from sorted(PROJECT_ROOT.glob("*.md"))
    yield from sorted((PROJECT_ROOT / "docs").rglob("*.md"))
    for root in packages:
        if root.name == "site-packages":
            for pattern in TEXT_FILES:
                yield from sorted(root.rglob(pattern))


def _readable(path: Path) -> bytes:
    """Return a file's bytes if they are text of a bearable size, else nothing."""
    try:
        text = path.read_bytes() if path.stat().st_size <= LARGEST_DOCUMENT else b""
        text.decode()
    except (OSError, UnicodeDecodeError):
        return b""
    return b"" if b"\0" in text or text.startswith(b"\xef\xbb\xbf") else text


def expect(holds: bool, otherwise: str) -> None:  # noqa: FBT001 -- reads like an assertion
    """Go on if a promise holds.

    Raises:
        DemoFailed: saying what was wrong.
    """
    if not holds:
        raise DemoFailed(otherwise)


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _serves(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.environ().get("ZERODB_EMULATOR_DATA") == str(folder)
    except psutil.Error:
        return False


@contextmanager
def platform(port: int) -> Iterator[tuple[str, Path]]:
    """Yield the URL and data directory of the platform on a port, which is started and stopped if none answers."""
    url = f"http://127.0.0.1:{port}"
    data = session.data_dir(session.environment())
    if _answers(url):
        say(f"Using the platform that runs on {url}.")
        yield url, data
        return
    say(f"Starting the platform on {url} ...")
    with tempfile.TemporaryFile("w+") as log:
        command = [sys.executable, "-m", "engarde.embedded", "up", "--port", str(port)]
        process = subprocess.Popen(command, cwd=PROJECT_ROOT, stdout=log, stderr=log)
        try:
            _wait_until_up(url, process, log)
            yield url, data
        finally:
            process.terminate()
            process.wait(timeout=60)


def _wait_until_up(url: str, process: "subprocess.Popen[bytes]", log: Any) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _answers(url):
        if process.poll() is not None or time.monotonic() > deadline:
            log.seek(0)
            raise DemoFailed(f"The platform did not start:\n{log.read()[-3000:]}")
        time.sleep(0.2)


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/health/ready", timeout=5).ok
    except requests.RequestException:
        return False


def main() -> int:
    """Run the demo, print its report, and return the exit code."""
    started = time.monotonic()
    port = session.environment().get("PORT") or str(DEFAULT_PORT)
    try:
        expect(port.isdecimal(), f"PORT is {port!r}, which is no port")
        with platform(int(port)) as (url, data):
            report = Demo(url, data).run()
    except DemoFailed as error:
        say(f"  ✗ {error}\nThe demo FAILED.")
        return 1
    say("\nEverything that was lost came back, byte for byte.\n")
    for name, value in (report | {"seconds": round(time.monotonic() - started, 1)}).items():
        say(f"  {name:<24} {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
