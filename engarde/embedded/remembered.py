"""Ports and secrets of a data directory, chosen once, so that a running platform keeps its addresses."""

import secrets
import socket
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engarde.embedded import files

HOST = "127.0.0.1"
# Below the range that the kernel gives to outgoing connections: a client that retries a dead port of that range can end up connected to itself, and then blocks it.
PORTS = range(20_000, 32_000)


class Remembered:
    """Values by name, kept in a file that its owner alone can read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._values = files.read_json(path)

    def port(self, name: str) -> int:
        """Return the port chosen for `name`."""
        return int(self._value(name, self._free_port))

    def settle_port(self, name: str) -> int:
        """Return the port for `name`, another one than before if a stranger took that."""
        if not is_free(self.port(name)):
            self.forget(name)
        return self.port(name)

    def secret(self, name: str) -> str:
        """Return the random secret made for `name`."""
        return str(self._value(name, lambda: secrets.token_urlsafe(24)))

    def uuid(self, name: str) -> str:
        """Return the random UUID made for `name`."""
        return str(self._value(name, lambda: str(uuid.uuid4())))

    def text(self, name: str, choose: Callable[[], str]) -> str:
        """Return the text chosen for `name`."""
        return str(self._value(name, choose))

    def _value(self, name: str, choose: Callable[[], Any]) -> Any:
        with self._lock:
            if name not in self._values:
                self._values[name] = choose()
                files.write_json(self._path, self._values)
            return self._values[name]

    def forget(self, name: str) -> None:
        """Have the value for `name` chosen anew."""
        with self._lock:
            self._values.pop(name, None)

    def _free_port(self) -> int:
        """Return a port that nobody listens on and that no other name has: that one's service may start any moment."""
        while (port := free_port()) in self._values.values():
            pass
        return port


def free_port() -> int:
    """Return a port of 127.0.0.1 that nobody listens on."""
    while True:
        port = secrets.choice(PORTS)
        if is_free(port):
            return port


def is_free(port: int) -> bool:
    """Tell whether a server could listen on `port` of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
