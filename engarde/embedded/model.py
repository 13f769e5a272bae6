"""The local language model as `make up` sees it: started with the other services, and missed by none of them."""

import time
from collections.abc import Callable, Mapping
from typing import Any

from engarde.embedded import session
from engarde.embedded.llm import MODEL, install
from engarde.embedded.paths import DataDir
from engarde.embedded.services.llm import LLM
from engarde.embedded.supervisor import READY

WAIT_SECONDS = 3.0
WATCH_SECONDS = 1.0
POLL_SECONDS = 0.05


class Model:
    """The model of one data directory, or the reason why there is none."""

    def __init__(self, data: DataDir, environ: Mapping[str, str], say: Callable[[str], None]) -> None:
        self._data = data
        self._say = say
        self._next_look = 0.0
        self._failed = False
        self._absence = session.why_no_model(environ)
        if not self._absence and not install.is_current():
            self._absence = "it is not installed; run `python -m engarde.embedded install`"

    @property
    def services(self) -> frozenset[str]:
        """The service to start, if any."""
        return frozenset() if self._absence else frozenset({LLM.name})

    def settings(self) -> dict[str, str]:
        """Wait a moment until it is ready, and return what leads to it, now or soon; nothing where there is none."""
        deadline = time.monotonic() + WAIT_SECONDS
        while self.services and time.monotonic() < deadline:
            state = self._state()
            if state.get("error") or state.get("phase") == READY:
                break
            time.sleep(POLL_SECONDS)
        return {} if self._absence or state.get("error") else state.get("settings", {})

    def watch(self) -> None:
        """Say once if it fails for good. Call it often."""
        if self._absence or self._failed or time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + WATCH_SECONDS
        if error := self._state().get("error"):
            self._failed = True
            self._say(f"{error}\nGoing on without the local language model.")

    def welcome(self) -> str:
        """Return in a line which model there is, and how to have it otherwise."""
        if self._absence:
            return f"none embedded: {self._absence}"
        state = self._state()
        if state.get("error"):
            return f"none: it does not start, see {self._data.log(LLM.name)}"
        loading = "" if state.get("phase") == READY else " (still loading)"
        return f"{MODEL}{loading}, small and simple-minded: for trying things out. EMBEDDED_LLM=off does without"

    def _state(self) -> dict[str, Any]:
        return session.service_state(self._data, LLM.name)
