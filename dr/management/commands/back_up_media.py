"""`manage.py back_up_media`: media files' bytes into the second storage, now."""

import time
from collections import Counter
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone
from tqdm import tqdm

from dr import media_copies, media_files
from engarde.common.commands import JSONCommand

LONGEST_WAIT_SECONDS = 120.0
CHECK_LIMIT = 100
COUNTED = ("copied", "bytes", "failed", "away", "removed")


class Command(JSONCommand):
    """Copies what is due, or reads old copies with `--check`."""

    help = "Copy media files into the second storage (DR_MEDIA_STORAGE), or check the copies there."

    def add_arguments(self, parser: CommandParser) -> None:
        """Take `--until-empty` and `--check`."""
        super().add_arguments(parser)
        parser.add_argument("--until-empty", action="store_true", help="go on until nothing is left that can be done")
        parser.add_argument(
            "--check", action="store_true", help="read copies that nobody read for 30 days and mend what is wrong"
        )

    def run(self, **options: Any) -> dict[str, Any]:
        """Run and return what was done.

        Raises:
            CommandError: there is no second storage.
        """
        if not media_files.has_second():
            raise CommandError("There is no second storage: set DR_MEDIA_STORAGE to file, s3 or gcs.")
        started = time.perf_counter()
        work = self._check if options["check"] else self._copy
        with tqdm(unit="file", desc="check" if options["check"] else "copy", disable=options["json"]) as bar:
            report = work(bar.update, until_empty=options["until_empty"])
        return report | {"until_empty": options["until_empty"], "seconds": round(time.perf_counter() - started, 3)}

    def _copy(self, progress: media_copies.Progress, *, until_empty: bool) -> dict[str, Any]:
        """Run passes while they get on, or others do; all blobs are looked at whenever nothing else is left."""
        totals: Counter[str] = Counter()
        thorough, deadline = True, time.monotonic() + LONGEST_WAIT_SECONDS
        while True:
            done = media_copies.run_pass(now=timezone.now, thorough=thorough, progress=progress)
            totals.update({name: getattr(done, name) for name in COUNTED})
            if done.copied:
                deadline = time.monotonic() + LONGEST_WAIT_SECONDS
            is_over = thorough and not done.copied and not _is_busy(done)
            if not until_empty or is_over or time.monotonic() > deadline:
                return asdict(done) | totals
            if not done.copied and _is_busy(done):
                time.sleep(0.5)
            thorough = not done.copied

    def _check(self, progress: media_copies.Progress, *, until_empty: bool) -> dict[str, Any]:
        """Check until none is due or a storage is away."""
        totals = {"checked": 0, "mended": 0, "broken": 0}
        while True:
            done = media_copies.check_pass(now=timezone.now, limit=CHECK_LIMIT, progress=progress)
            totals = {name: total + getattr(done, name) for name, total in totals.items()}
            if not until_empty or not done.checked or done.reason:
                return totals | {"reason": done.reason}

    def succeeded(self, report: dict[str, Any]) -> bool:
        """Fail when something could not be copied or checked, so that a script notices."""
        if "checked" in report:
            return not report["broken"] and not report["reason"]
        return bool(report["status"] == "healthy" and not (report["until_empty"] and report["waiting"]))


def _is_busy(done: media_copies.Pass) -> bool:
    """Tell whether another worker copies what is left."""
    return bool(done.waiting and done.status == "healthy")
