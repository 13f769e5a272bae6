"""A live server with its schema, somebody to call it, and a provider of models behind `local`."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests import people
from tests.generation.sockets import headers_of, serving
from tests.providers import Provider


@dataclass(frozen=True)
class Live:
    """What a client's author is given: an address, a key, and the schema."""

    url: str
    key: str
    schema: Path


@pytest.fixture(scope="module")
def live(django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A server, and the owner of a tenant."""
    with django_db_blocker.unblock():
        key = headers_of(people.new_owner("clients"))["X-API-Key"]
    with Provider() as provider, serving(LOCAL_LLM_BASE_URL=provider.url) as server:
        schema = tmp_path_factory.mktemp("schema") / "openapi.json"
        schema.write_bytes(requests.get(f"{server.url}/api/schema", timeout=30).content)
        yield Live(server.url, key, schema)
