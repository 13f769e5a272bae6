"""The BigQuery emulator, run by our launcher in its own virtual environment."""

import socket
from collections.abc import Sequence
from pathlib import Path

from engarde.embedded.bigquery import install
from engarde.embedded.errors import StartFailed
from engarde.embedded.remembered import HOST
from engarde.embedded.services.base import Service, answers

LAUNCHER = Path(install.__file__).with_name("launcher.py")
PROJECT = "engarde-local"
GRPC_BYTES = 1024 * 1024 * 1024


class BigQuery(Service):
    """One DuckDB file behind BigQuery's REST and gRPC interfaces."""

    name = "bigquery"

    @property
    def executable(self) -> Path:
        """The interpreter of its own environment."""
        return install.python()

    def make_data(self) -> None:
        """See `Service.make_data`."""
        if not self.executable.exists():
            raise StartFailed(
                "The BigQuery emulator is not installed: run `python -m engarde.embedded install`, "
                "set BIGQUERY_PROJECT_ID, or turn the backup off with BIGQUERY_SYNC_ENABLED=false."
            )
        (self.folder / "uploads").mkdir(mode=0o700, parents=True, exist_ok=True)

    def settle_ports(self) -> None:
        """Choose both ports."""
        self.remembered.settle_port("bigquery")
        self.remembered.settle_port("bigquery_grpc")

    def move(self) -> None:
        """See `Service.move`."""
        self.remembered.forget("bigquery")
        self.remembered.forget("bigquery_grpc")

    def environment(self) -> dict[str, str]:
        """Return its environment: nothing is downloaded, and a table is read in one message."""
        return {
            **super().environment(),
            "BQEMU_ENABLE_FORMAT_EXTENSIONS": "false",
            "BQEMU_WRITE_API_MAX_REQUEST_BYTES": str(GRPC_BYTES),
            "BQEMU_UPLOAD_STAGING_DIR": str(self.folder / "uploads"),
        }

    def command(self) -> Sequence[str | Path]:
        """Return the launcher's command."""
        ports = ["--rest-port", str(self._port), "--grpc-port", str(self._grpc_port)]
        where = ["--rest-host", HOST, "--grpc-host", HOST, *ports]
        data = ["--persistent", "--data-dir", str(self.folder), "--project", PROJECT]
        return [self.executable, LAUNCHER, *where, *data, "--log-level", "WARNING", "--log-format", "console"]

    def ready(self) -> bool:
        """Tell whether both interfaces answer."""
        try:
            socket.create_connection((HOST, self._grpc_port), timeout=1).close()
        except OSError:
            return False
        return answers(self._port, "/healthz")

    def settings(self) -> dict[str, str]:
        """Return the project and where to find it."""
        return {
            "BIGQUERY_PROJECT_ID": PROJECT,
            "BIGQUERY_EMULATOR_HOST": f"http://{HOST}:{self._port}",
            "BIGQUERY_EMULATOR_GRPC_HOST": f"{HOST}:{self._grpc_port}",
        }

    @property
    def _port(self) -> int:
        return self.remembered.port("bigquery")

    @property
    def _grpc_port(self) -> int:
        return self.remembered.port("bigquery_grpc")
