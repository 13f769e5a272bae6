"""The emulator of ZeroDB's documented API, served by granian."""

import sys
from collections.abc import Sequence
from pathlib import Path

from engarde.embedded.paths import PROJECT_ROOT
from engarde.embedded.remembered import HOST
from engarde.embedded.services.base import Service, answers

APPLICATION = "engarde.embedded.zerodb.app:app"


class ZeroDB(Service):
    """The document store."""

    name = "zerodb"

    @property
    def executable(self) -> Path:
        """The interpreter of this project."""
        return Path(sys.executable)

    @property
    def port(self) -> int:
        """The port it listens on."""
        return self.remembered.port("zerodb")

    def settle_ports(self) -> None:
        """Choose the port."""
        self.remembered.settle_port("zerodb")

    def move(self) -> None:
        """See `Service.move`."""
        self.remembered.forget("zerodb")

    def environment(self) -> dict[str, str]:
        """Return its environment, which names its data and the credentials that it accepts."""
        return {
            **super().environment(),
            "PYTHONPATH": str(PROJECT_ROOT),
            "ZERODB_EMULATOR_DATA": str(self.folder),
            "ZERODB_EMULATOR_API_KEY": self._api_key,
            "ZERODB_EMULATOR_PROJECT_ID": self._project,
        }

    def command(self) -> Sequence[str | Path]:
        """Return granian's command."""
        where = ["--host", HOST, "--port", str(self.port)]
        return [
            sys.executable,
            "-m",
            "granian",
            "--interface",
            "asgi",
            *where,
            "--workers",
            "1",
            "--no-ws",
            APPLICATION,
        ]

    def ready(self) -> bool:
        """Tell whether it answers."""
        return answers(self.port, "/health")

    def settings(self) -> dict[str, str]:
        """Return where it is and what to show at the door."""
        return {
            "ZERODB_BASE_URL": f"http://{HOST}:{self.port}",
            "ZERODB_API_KEY": self._api_key,
            "ZERODB_PROJECT_ID": self._project,
        }

    @property
    def _api_key(self) -> str:
        return self.remembered.secret("zerodb_api_key")

    @property
    def _project(self) -> str:
        return self.remembered.uuid("zerodb_project")
