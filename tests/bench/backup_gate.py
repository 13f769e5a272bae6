"""A gate before BigQuery: lets calls through, refuses them, leaves them without an answer, or is not there at all."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event
from typing import Any

import grpc
import requests

from engarde.embedded import remembered

LARGEST_MESSAGE = 256 * 1024**2
LIMITS = (
    ("grpc.max_receive_message_length", LARGEST_MESSAGE),
    ("grpc.max_send_message_length", LARGEST_MESSAGE),
    ("grpc.so_reuseport", 0),
)
CALLS_AT_ONCE = 32
SILENT_SECONDS = 60.0
FOR_EVER = 10**9


@dataclass(frozen=True)
class Fault:
    """What BigQuery does instead of its work.

    Attributes:
        status: of gRPC; None with `is_silent` or `is_gone`.
        rest: what the emulator's REST interface is told to do.
    """

    name: str
    rest: dict[str, Any]
    status: grpc.StatusCode | None = None
    is_silent: bool = False
    is_gone: bool = False


FAULTS = (
    Fault("403", {"code": 403, "reason": "accessDenied"}, grpc.StatusCode.PERMISSION_DENIED),
    Fault("429", {"code": 429, "reason": "rateLimitExceeded"}, grpc.StatusCode.RESOURCE_EXHAUSTED),
    Fault("500", {"code": 500, "reason": "backendError"}, grpc.StatusCode.INTERNAL),
    Fault("time-outs", {"delay": SILENT_SECONDS}, is_silent=True),
    Fault("being down", {"code": 503, "reason": "backendError"}, is_gone=True),
)


class Gate(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """A gRPC server that hands on to another, byte for byte, unless a fault is set."""

    def __init__(self, target: str, rest: str) -> None:
        self._channel = grpc.insecure_channel(target, options=list(LIMITS))
        self._rest = rest
        self._fault: Fault | None = None
        self._server: Any = None
        self.address = f"{remembered.HOST}:{remembered.free_port()}"

    def open(self) -> None:
        """Listen, if it does not."""
        if self._server is None:
            self._server = grpc.server(ThreadPoolExecutor(CALLS_AT_ONCE), handlers=[self], options=list(LIMITS))
            if not self._server.add_insecure_port(self.address):
                raise RuntimeError(f"{self.address} is taken.")
            self._server.start()

    def close(self) -> None:
        """Stop listening; calls under way break off."""
        if self._server is not None:
            self._server.stop(0).wait()
            self._server = None

    @contextmanager
    def faulty(self, fault: Fault) -> Iterator[None]:
        """Have both of BigQuery's interfaces show a fault for as long as the block lasts."""
        self._fault = fault
        self._tell_rest({**fault.rest, "left": FOR_EVER})
        if fault.is_gone:
            self.close()
        try:
            yield
        finally:
            self._fault = None
            self._tell_rest({})
            self.open()

    def _tell_rest(self, fault: dict[str, Any]) -> None:
        requests.post(f"{self._rest}/__fault", json=fault, timeout=10).raise_for_status()

    def service(self, details: Any) -> Any:
        """Return what handles a call."""
        return grpc.stream_stream_rpc_method_handler(self._handler(details.method))

    def _handler(self, method: str) -> Callable[[Iterator[bytes], Any], Iterator[bytes]]:
        def handle(messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
            fault = self._fault
            if fault and fault.status:
                context.abort(fault.status, f"injected: {fault.name}")
            if fault and fault.is_silent:
                _wait_for_end(context)
            yield from self._hand_on(method, messages, context)

        return handle

    def _hand_on(self, method: str, messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
        routing = [pair for pair in context.invocation_metadata() if pair[0] == "x-goog-request-params"]
        call: Any = self._channel.stream_stream(method)
        try:
            yield from call(messages, metadata=routing, timeout=context.time_remaining())
        except grpc.RpcError as error:
            with suppress(AttributeError):
                context.abort(error.code(), error.details())
            raise


def _wait_for_end(context: Any) -> None:
    """Say nothing until the caller gives up."""
    ended = Event()
    if context.add_callback(ended.set):
        ended.wait(SILENT_SECONDS)
    context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "injected: no answer")


@contextmanager
def before(target: str, rest: str) -> Iterator[Gate]:
    """Open a gate before BigQuery's gRPC interface for as long as the block lasts."""
    gate = Gate(target, rest)
    gate.open()
    try:
        yield gate
    finally:
        gate.close()
