"""A pytest plugin, loaded before Django's settings are: real embedded services in a throw-away data directory.

Every process that a test starts inherits the environment set here, so all talk to the same PostgreSQL, Valkey, ZeroDB
and BigQuery.
"""

import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import pytest

from engarde.embedded import session

SETTINGS = {
    "SECRET_KEY": "a-key-that-only-the-tests-use-0123456789abcdef",
    "THROTTLE_LOGIN": "off",
    "THROTTLE_TENANT": "off",
    "LOG_LEVEL": "ERROR",
}
_stack = ExitStack()


def _start() -> None:
    data = Path(tempfile.mkdtemp(prefix="engarde-tests-"))
    _stack.callback(shutil.rmtree, data, ignore_errors=True)
    for name in session.OWN_SERVICE.values():
        os.environ.pop(name, None)
    os.environ.update(SETTINGS, DATA_DIR=str(data))
    os.environ.update(_stack.enter_context(session.join(data, session.needed(os.environ), wait_for_end=True)))
    os.environ[session.JOINED] = "joined"


def _wanted() -> bool:
    return not {"--help", "-h", "--version", "--collect-only", "--co"} & set(sys.argv)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests() -> None:
    """Start the services before pytest-django reads the settings."""
    if _wanted():
        _start()


@pytest.hookimpl(trylast=True)
def pytest_unconfigure() -> None:
    """Stop them and remove their data."""
    _stack.close()
