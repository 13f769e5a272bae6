"""Every `sh` and `python` block of README and docs, run as printed, top to bottom a page, against a platform started by `make up`.

All pages share one platform in a data directory that is thrown away. What `make test` has no time for is run by `make soak`.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from engarde.embedded import remembered
from engarde.embedded.paths import PROJECT_ROOT
from tests.docs import pages, shell
from tests.faults.platform import Platform, eventually
from tests.providers import Provider

SECONDS = 1500
PAGES = {
    pages.name_of(page): found
    for page in pages.all_pages()
    if (found := [block for block in pages.blocks(page.read_text()) if pages.runs(block)])
}


@dataclass
class Printed(Platform):
    """A platform started by the command that the pages print."""

    @property
    def environment(self) -> dict[str, str]:
        """What a reader's shell has."""
        return shell.readers(super().environment)

    def start(self) -> None:
        """Start it and wait until it serves."""
        self.data.mkdir(exist_ok=True)
        with (self.data / "up.log").open("ab") as log:
            self.process = subprocess.Popen(
                ["make", "up"],
                env={**self.environment, "PORT": str(self.port)},
                cwd=PROJECT_ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        eventually(self.is_ready, 120)

    def stop(self) -> None:
        """Stop it as Ctrl-C in a terminal does, which reaches make and what it runs."""
        if self.process:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGINT)
            self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """`make up`, with a provider of the tests' own behind `local`, and webhooks that may lead to loopback."""
    with Provider() as provider:
        variables = {
            "LOCAL_LLM_BASE_URL": provider.url,
            "WEBHOOK_ALLOW_HTTP": "true",
            "WEBHOOK_ALLOW_PRIVATE": "true",
            "LOG_LEVEL": "INFO",
            "HOME": str(tmp_path_factory.mktemp("home")),
        }
        running = Printed(tmp_path_factory.mktemp("guides") / "data", remembered.free_port(), variables=variables)
        try:
            running.start()
            yield running
        finally:
            running.stop()


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 60)
@pytest.mark.parametrize("name", PAGES)
def test_a_page_works_as_printed(platform: Platform, name: str) -> None:
    found = PAGES[name]
    printed = shell.run(found, environment=platform.environment, port=platform.port, seconds=SECONDS)
    wrong = [
        f"{name}:{block.line}: {'; '.join(surprises)}\n{said[-2000:]}"
        for block, said in zip(found, printed, strict=True)
        if (surprises := shell.surprises(block, said))
    ]
    assert not wrong, "\n".join(wrong)
