"""Schemathesis asks every operation of the OpenAPI schema: no 5xx, and no answer outside the schema.

`make test` asks the same each time; `make soak` asks more, and other things each time. Most ids are those of things that are
there, else nearly every answer would be a 404.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from io import BytesIO, StringIO
from typing import Any, NamedTuple
from unittest.mock import patch
from uuid import uuid4

import orjson
import pytest
import schemathesis
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.test import override_settings
from drf_spectacular.generators import SchemaGenerator
from drf_spectacular.renderers import OpenApiJsonRenderer
from hypothesis import HealthCheck, Phase, given, settings, strategies
from PIL import Image
from schemathesis import GenerationMode, checks
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi import checks as openapi_checks

from engarde.accounts.models import User
from generation import single
from tests.generation.house import ask_batch, reaching, with_key
from tests.people import PASSWORD, Person, log_in, new_colleague, new_owner
from tests.providers import Provider

CHECKS = [
    checks.not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]
EACH, EACH_IN_SOAK = 3, 200  # examples of an operation; all together are well over 200 and 2,000
THINGS = 8  # of each kind
STAFF = "/api/admin/"
SETTINGS: dict[str, Any] = {
    "ACCESS_TOKEN_SECONDS": 24 * 3600,
    "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],
    "WEBHOOK_ALLOW_HTTP": True,
    "WEBHOOK_ALLOW_PRIVATE": True,
}
NOWHERE = "http://127.0.0.1:1024"  # no name has to be looked up
OURS = strategies.sampled_from([True] * 7 + [False])


def _schema() -> Any:
    document = SchemaGenerator().get_schema(request=None, public=True)
    config = SchemathesisConfig.from_dict({"generation": {"with-security-parameters": False}})  # credentials are ours
    schema = schemathesis.openapi.from_dict(orjson.loads(OpenApiJsonRenderer().render(document)), config=config)
    schema.app = get_wsgi_application()
    return schema


SCHEMA = _schema()
OPERATIONS = {
    operation.definition.raw["operationId"]: operation
    for operation in (found.ok() for found in SCHEMA.get_all_operations())
}
IN_ORDER = sorted(OPERATIONS, key=lambda name: OPERATIONS[name].method == "delete")  # what is there is needed before


class World(NamedTuple):
    """What the calls find, and who calls.

    Attributes:
        ids: of what is there, by the name that a path gives them.
        fields: of bodies that only a few values do for, and one of those.
    """

    ids: Mapping[str, list[Any]]
    fields: Mapping[str, Any]
    tenant: Mapping[str, str]
    staff: Mapping[str, str]


@pytest.fixture(scope="module")
def world(django_db_setup: None, django_db_blocker: Any) -> Iterator[World]:
    with ExitStack() as stack:
        stack.enter_context(django_db_blocker.unblock())
        vendor = stack.enter_context(Provider())
        stack.enter_context(reaching(vendor))
        stack.enter_context(patch.object(single, "RETRY_SECONDS", 0.01))
        stack.enter_context(override_settings(**SETTINGS))
        yield _furnished(with_key(new_owner("schema", tier="enterprise")))


def _furnished(owner: Person) -> World:
    make = partial(_made, owner)
    contents = [make("content", title=f"Item {number}", type="post", body="Text") for number in range(THINGS)]
    for content_id in contents:
        owner.api.patch(f"/api/content/{content_id}", {"body": "Another text", "tags": ["news"]})
    hooks = [make("webhooks", url=f"{NOWHERE}/{number}") for number in range(THINGS)]
    jobs = [str(ask_batch(owner, 2).json()["job_id"]) for _ in range(THINGS)]
    ids: dict[str, list[Any]] = {
        "content_id": contents,
        "version": [1, 2],
        "brand_id": [make("brands", name=f"Brand {number}") for number in range(THINGS)],
        "key_id": [make("api-keys", name=f"Key {number}", scopes=["content:read"]) for number in range(THINGS)],
        "user_id": [str(new_colleague(owner).user_id) for _ in range(THINGS)],
        "target_id": [
            make("content/quota/alert-targets", kind="webhook", url=f"{NOWHERE}/{number}", name="A")
            for number in range(THINGS)
        ],
        "media_id": [_file(owner, number) for number in range(THINGS)],
        "webhook_id": hooks,
        "delivery_id": [owner.api.post(f"/api/webhooks/{hook}/test").json()["id"] for hook in hooks],
        "job_id": jobs,
        "provider": ["openai", "local"],
    }
    call_command("sync_to_bigquery", until_empty=True, stdout=StringIO())
    staff = User.objects.create_user("schema-staff@example.com", PASSWORD, is_staff=True)
    fields: dict[str, Any] = {
        "brand_id": str(owner.brand_id),
        "media": ids["media_id"][:2],
        "ids": contents[:3],
        "content_id": contents[0],
        "url": f"{NOWHERE}/hook",
        "email": f"{uuid4().hex}@example.com",
        "provider": "local",
        "model": "gpt-test",
        "version": 1,
    }
    return World(ids, fields, log_in(owner.email), log_in(staff.email))


def _made(owner: Person, where: str, **fields: Any) -> str:
    answer = owner.api.post(f"/api/{where}", fields)
    assert answer.status_code == 201, answer.content
    return str(answer.json()["id"])


def _file(owner: Person, number: int) -> str:
    picture = BytesIO()
    Image.new("RGB", (8 + number, 8)).save(picture, "PNG")
    picture.seek(0)
    picture.name = "picture.png"
    answer = owner.api.post("/api/content/media", {"file": picture}, format="multipart")
    assert answer.status_code == 201, answer.content
    return str(answer.json()["id"])


def _cases(operation: Any) -> Any:
    """Return requests that the schema allows and, where anything can be wrong with one, ones that it does not allow."""
    allowed = operation.as_strategy()
    takes = operation.query or operation.body or operation.headers
    return allowed | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE) if takes else allowed


def _ask(world: World, name: str, most: int, **how: Any) -> None:
    """Have an operation asked `most` times, at most."""
    operation = OPERATIONS[name]
    credentials = world.staff if operation.path.startswith(STAFF) else world.tenant
    headers = {key.removeprefix("HTTP_").replace("_", "-"): value for key, value in credentials.items()}

    @settings(
        max_examples=most,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        **how,
    )
    @given(case=_cases(operation), data=strategies.data())
    def ask(case: Any, data: Any) -> None:
        case.path_parameters = {
            name: data.draw(strategies.sampled_from(world.ids[name])) if data.draw(OURS) else value
            for name, value in case.path_parameters.items()
        }
        if isinstance(case.body, dict) and data.draw(OURS):
            case.body = case.body | {name: world.fields[name] for name in world.fields.keys() & case.body.keys()}
        case.call_and_validate(headers=headers, checks=CHECKS)

    ask()


@pytest.mark.parametrize("name", IN_ORDER)
def test_an_operation_answers_as_the_schema_says(world: World, name: str) -> None:
    _ask(world, name, EACH, derandomize=True)


@pytest.mark.soak
@pytest.mark.parametrize("name", IN_ORDER)
def test_an_operation_answers_as_the_schema_says_every_time(world: World, name: str) -> None:
    _ask(world, name, EACH_IN_SOAK)
