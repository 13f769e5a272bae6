"""Named people for tests: alice owns a tenant, bob is her colleague, charlie owns another tenant."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from django.utils import timezone
from rest_framework.test import APIClient

from engarde.accounts.models import Membership, User
from engarde.common.scopes import system_scope
from quotas import operations as quota_operations

PASSWORD = "correct-horse-battery"
_numbers = itertools.count(1)


class JSONClient(APIClient):
    """DRF's test client, speaking JSON unless told otherwise."""

    default_format = "json"


@dataclass(frozen=True)
class Person:
    """Somebody with credentials, as an HTTP client sees them."""

    email: str
    user_id: UUID
    tenant_id: UUID
    brand_id: UUID
    credentials: Mapping[str, str] = field(default_factory=dict)

    @property
    def api(self) -> APIClient:
        """A client that sends this person's credentials."""
        client = JSONClient()
        client.credentials(**self.credentials)
        return client

    def writes(self, **fields: Any) -> dict[str, Any]:
        """Create an item and return the answer's body."""
        answer = self.api.post("/api/content", {"title": "A title", "type": "post", "body": "A body", **fields})
        assert answer.status_code == 201, answer.content
        return answer.json()


def new_owner(name: str = "alice", *, tier: str = "free", storage_limit: int | None = None) -> Person:
    """Make a tenant and return its owner, who uses the tenant's API key."""
    email = f"{name}-{uuid4().hex[:12]}@example.com"
    new = quota_operations.create_tenant(
        name=f"{name}'s studio {next(_numbers)}",
        tier=tier,
        email=email,
        password=PASSWORD,
        brand_name=f"{name}'s brand",
        storage_limit=storage_limit,
        now=timezone.now(),
    )
    return Person(email, new.owner.id, new.tenant.id, new.brand.id, {"HTTP_X_API_KEY": new.api_key})


def new_colleague(owner: Person, role: str = "editor", name: str = "bob") -> Person:
    """Make a member of somebody's tenant, who is logged in."""
    email = f"{name}-{uuid4().hex[:12]}@example.com"
    user = User.objects.create_user(email, PASSWORD, email_verified_at=timezone.now())
    with system_scope("a test adds a member"):
        Membership.objects.create(tenant_id=owner.tenant_id, user=user, role=role, accepted_at=timezone.now())
    return Person(email, user.id, owner.tenant_id, owner.brand_id, log_in(email))


def logged_in(person: Person) -> Person:
    """Return the same person with an access token in place of the API key."""
    return Person(person.email, person.user_id, person.tenant_id, person.brand_id, log_in(person.email))


def log_in(email: str, password: str = PASSWORD) -> dict[str, str]:
    """Return the headers of somebody who logs in."""
    answer = JSONClient().post("/api/auth/login", {"email": email, "password": password})
    assert answer.status_code == 200, answer.content
    return {"HTTP_AUTHORIZATION": f"Bearer {answer.json()['access_token']}"}
