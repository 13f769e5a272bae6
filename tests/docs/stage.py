"""A place where printed commands do no harm that need the platform stopped, or take everything away."""

import re
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from engarde.embedded import session
from engarde.embedded.paths import PROJECT_ROOT
from tests.docs import shell
from tests.embedded.conftest import plain_environment

SECONDS = 300
ITEMS = """
SELECT tenant_id::text, id::text, title, version, encode(sha256, 'hex'), deleted_at IS NOT NULL
FROM content_storage_metadata ORDER BY id"""


@dataclass(frozen=True)
class Stage:
    """A checkout of links, in which commands may leave files, and services in a data directory of their own."""

    folder: Path
    environment: Mapping[str, str]
    database: str

    def run(self, commands: str, *, code: int = 0, **variables: str) -> str:
        """Run lines of a shell up to the first that fails, and return what they printed."""
        done = subprocess.run(
            ["bash", "-ec", commands],
            cwd=self.folder,
            env={**self.environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == code, f"{commands}\n{done.stdout[-3000:]}"
        return done.stdout

    def manage(self, command: str, *, code: int = 0) -> str:
        """Run a management command."""
        return self.run(f".venv/bin/python manage.py {command}", code=code)

    def ask(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Return rows of all tenants, over a connection that is gone afterwards."""
        with psycopg.connect(self.database) as connection:
            connection.execute("SET engarde.system = 'on'")
            return connection.execute(statement, values).fetchall()

    def items(self) -> list[tuple[Any, ...]]:
        """Return all items: tenant, id, title, version, checksum, whether in the trash."""
        return self.ask(ITEMS)


@contextmanager
def stage(place: Path) -> Iterator[Stage]:
    """Start the services and set all tiers up."""
    folder, home, data = (place / name for name in ("checkout", "home", "data"))
    folder.mkdir()
    home.mkdir()
    for each in PROJECT_ROOT.iterdir():
        (folder / each.name).symlink_to(each)
    variables = {"DATA_DIR": str(data), "HOME": str(home), "LOG_LEVEL": "ERROR", "EMBEDDED_LLM": "off"}
    environment = shell.readers(plain_environment(**variables))
    with session.join(data, session.needed(environment), wait_for_end=True) as settings:
        found = Stage(folder, environment, settings["DATABASE_URL"])
        found.manage("release --strict")
        yield found


def lines_of(block: str, *, of: str = "") -> list[str]:
    """Return a block's lines, or those that have a text in them."""
    return [line for line in block.splitlines() if of in line]


def value(printed: str, name: str) -> str:
    """Return what a report for people says beside a name."""
    found = re.search(rf"^{name} +(.*)$", printed, re.MULTILINE)
    assert found, printed
    return found[1]
