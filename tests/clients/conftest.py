"""A live server, somebody to call it, a provider of models behind `local`, and the commands that the API guide prints."""

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engarde.embedded.paths import PROJECT_ROOT
from tests import people
from tests.generation.sockets import headers_of, serving
from tests.providers import Provider

GUIDE = PROJECT_ROOT / "docs" / "guides" / "api.md"
SECONDS = 600


@dataclass(frozen=True)
class Live:
    """What a client's author is given: an address and a key."""

    url: str
    key: str

    def printed(self, language: str) -> list[str]:
        """Return the command that the guide prints for a language, with this server's address in it."""
        [command] = re.findall(rf"^\| {language} \| `([^`]+)`", GUIDE.read_text(), re.MULTILINE)
        assert "http://127.0.0.1:8000/" in command
        return str(command).replace("http://127.0.0.1:8000", self.url).split()


@pytest.fixture(scope="module")
def live(django_db_setup: None, django_db_blocker: Any) -> Iterator[Live]:
    """A server, and the owner of a tenant."""
    with django_db_blocker.unblock():
        key = headers_of(people.new_owner("clients"))["X-API-Key"]
    with Provider() as provider, serving(LOCAL_LLM_BASE_URL=provider.url) as server:
        yield Live(server.url, key)


def run(place: Path, *command: object, environment: Mapping[str, str]) -> None:
    """Run a command in a folder; it has to succeed. The programs of this environment are in its PATH."""
    path = {"PATH": f"{Path(sys.executable).parent}:{environment['PATH']}"}
    done = subprocess.run(
        [str(part) for part in command],
        cwd=place,
        env={**environment, **path},
        capture_output=True,
        text=True,
        check=False,
        timeout=SECONDS,
    )
    assert done.returncode == 0, done.stdout + done.stderr
