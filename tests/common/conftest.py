"""Broken Redis servers."""

import socket
from collections.abc import Iterator

import pytest


@pytest.fixture
def hanging_url() -> Iterator[str]:
    """The address of a Redis that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@pytest.fixture
def absent_url() -> str:
    """The address of a Redis that is not there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"redis://127.0.0.1:{port}/0"
