"""Fixtures for tests of generation."""

from collections.abc import Iterator

import pytest

from tests.generation.house import new_studio, reaching
from tests.people import Person
from tests.providers import Provider


@pytest.fixture(scope="module")
def vendor() -> Iterator[Provider]:
    """A provider of the module's own, in a process of its own."""
    with Provider() as provider:
        yield provider


@pytest.fixture
def provider(vendor: Provider) -> Iterator[Provider]:
    """The module's provider, well-behaved and without memory, which all vendors' calls go to."""
    vendor.behave()
    vendor.forget()
    with reaching(vendor):
        yield vendor


@pytest.fixture
def studio(database: None, provider: Provider) -> Person:
    """Owner of a tenant with an OpenAI key of its own."""
    return new_studio()
