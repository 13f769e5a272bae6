"""What is common to the tests of faults: a provider of language models, and one platform that both kinds of storm go over."""

import socket
from collections.abc import Iterator

import pytest

from tests.faults.platform import Platform
from tests.providers import Provider

pytest.register_assert_rewrite("tests.faults.author", "tests.faults.world")


@pytest.fixture(scope="package")
def provider() -> Iterator[Provider]:
    """A provider that can be told to misbehave."""
    with Provider() as running:
        yield running


@pytest.fixture(scope="package")
def platform(tmp_path_factory: pytest.TempPathFactory, provider: Provider) -> Iterator[Platform]:
    """One platform for all tests; each leaves it running and whole."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    variables = {
        "EMBEDDED_LLM": "off",
        "OPENAI_BASE_URL": provider.url,
        "LLM_PRICES": '{"openai/gpt-test": [1, 4]}',
        "GENERATION_CALL_TIMEOUT_SECONDS": "3",
        "GENERATION_RETRY_SECONDS": "0.5",
        "GENERATION_LEASE_SECONDS": "6",
    }
    running = Platform(tmp_path_factory.mktemp("platform") / "data", port, variables=variables)
    running.start()
    yield running
    running.stop()
