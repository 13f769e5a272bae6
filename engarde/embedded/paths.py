"""Where everything lives in a data directory."""

from dataclasses import dataclass
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class DataDir:
    """One data directory: a folder per service, `logs/`, and `run/` with locks and what the daemon says of itself."""

    root: Path

    @classmethod
    def at(cls, path: Path) -> "DataDir":
        """Return the data directory at `path`, made where it is missing, for its owner alone."""
        root = path.expanduser().resolve()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        for name in ("run", "logs"):
            (root / name).mkdir(mode=0o700, exist_ok=True)
        return cls(root)

    def folder(self, service: str) -> Path:
        """Return the folder that holds a service's data."""
        return self.root / service

    def log(self, name: str) -> Path:
        """Return the file that a program's output goes to."""
        return self.root / "logs" / f"{name}.log"

    @property
    def users_lock(self) -> Path:
        """Held shared by every process that uses the services, exclusively by a daemon that is stopping."""
        return self.root / "run" / "users.lock"

    @property
    def start_lock(self) -> Path:
        """Held by whoever starts a daemon."""
        return self.root / "run" / "start.lock"

    @property
    def daemon_lock(self) -> Path:
        """Held by the daemon as long as it lives."""
        return self.root / "run" / "daemon.lock"

    @property
    def platform_lock(self) -> Path:
        """Held by `up`: one platform per data directory."""
        return self.root / "run" / "platform.lock"

    @property
    def remembered(self) -> Path:
        """Ports and secrets, chosen once."""
        return self.root / "run" / "remembered.json"

    @property
    def state(self) -> Path:
        """What the daemon runs, written by it alone."""
        return self.root / "run" / "services.json"

    @property
    def platform(self) -> Path:
        """What `up` runs, written by it alone."""
        return self.root / "run" / "platform.json"

    @property
    def metrics(self) -> Path:
        """What the processes of one `up` count, together."""
        return self.root / "run" / "metrics"

    @property
    def wanted(self) -> Path:
        """One empty file per service that somebody asked for."""
        return self.root / "run" / "wanted"
