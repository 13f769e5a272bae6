from collections.abc import Iterator

import pytest

from tests.zerodb_process import ZeroDBProcess


@pytest.fixture(scope="session")
def zerodb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZeroDBProcess]:
    """The ZeroDB emulator, shared; give each test a collection prefix of its own."""
    process = ZeroDBProcess(tmp_path_factory.mktemp("zerodb"))
    process.start()
    yield process
    process.stop()
