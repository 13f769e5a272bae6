"""The small language model, run by our launcher on llama.cpp."""

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engarde.embedded.errors import StartFailed
from engarde.embedded.llm import MODEL, install
from engarde.embedded.remembered import HOST
from engarde.embedded.services.base import Service, answers
from engarde.embedded.supervisor import Program

SERVER = Path(install.__file__).with_name("server.py")


class LLM(Service):
    """An OpenAI-compatible server. Its folder holds nothing that matters; the weights are where they were installed."""

    name = "llm"

    @property
    def executable(self) -> Path:
        """The interpreter of this project."""
        return Path(sys.executable)

    def make_data(self) -> None:
        """See `Service.make_data`."""
        if not install.is_current():
            raise StartFailed("The local language model is not installed: run `python -m engarde.embedded install`.")
        super().make_data()

    def settle_ports(self) -> None:
        """Choose the port."""
        self.remembered.settle_port("llm")

    def environment(self) -> dict[str, str]:
        """Return its environment, which leads to what was installed for it."""
        return {**super().environment(), "PYTHONPATH": str(install.HOME)}

    def command(self) -> Sequence[str | Path]:
        """Return the launcher's command."""
        return [
            sys.executable,
            SERVER,
            "--model",
            install.model_file(),
            "--name",
            MODEL,
            "--port",
            str(self._port),
        ]

    def ready(self) -> bool:
        """Tell whether it answers."""
        return answers(self._port, "/health")

    def settings(self) -> dict[str, str]:
        """Return where it is."""
        return {"LOCAL_LLM_BASE_URL": f"http://{HOST}:{self._port}/v1"}

    def program(self) -> Program:
        """Return it as the supervisor runs it: left alone once it has failed again and again."""
        return replace(super().program(), gives_up=True)

    @property
    def _port(self) -> int:
        return self.remembered.port("llm")
