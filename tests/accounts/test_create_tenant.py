"""The commands that make a tenant and the first member of staff."""

import io
import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from django.core.management import CommandError, call_command

from engarde.accounts.models import Membership, User
from engarde.common.scopes import system_scope
from quotas.models import QuotaUsage
from tests.people import PASSWORD, JSONClient, Person, log_in, logged_in


def run(command: str, *arguments: str) -> str:
    out = io.StringIO()
    call_command(command, *arguments, stdout=out)
    return out.getvalue()


def address(name: str = "erin") -> str:
    return f"{name}-{uuid4().hex[:12]}@example.com"


def create(email: str, *more: str, password: str = PASSWORD, tier: str = "starter") -> dict[str, Any]:
    arguments = ["--name", "Erin's", "--tier", tier, "--email", email, "--password", password, *more]
    return json.loads(run("create_tenant", *arguments, "--json"))


def me(headers: dict[str, str]) -> Any:
    return JSONClient().get("/api/auth/me", **headers).json()  # type: ignore[arg-type]


def test_it_makes_a_tenant_with_an_owner_a_brand_and_a_key(database: None) -> None:
    email = address()

    made = create(email, "--brand", "Fizz")

    assert set(made) == {"tenant_id", "brand_id", "user_id", "api_key"}
    key = {"HTTP_X_API_KEY": made["api_key"]}
    assert me(key)["scopes"] == ["admin", "content:read", "content:write", "generate", "quota:read"]
    assert me(key)["active_tenant"]["tenant_id"] == made["tenant_id"]
    brands = JSONClient().get("/api/brands", **key).json()["data"]
    assert [(brand["id"], brand["name"]) for brand in brands] == [(made["brand_id"], "Fizz")]
    owner = me(log_in(email))
    assert owner["user"]["id"] == made["user_id"]
    assert owner["active_tenant"] == {
        "tenant_id": made["tenant_id"],
        "tenant_name": "Erin's",
        "role": "owner",
        "status": "active",
    }


def test_the_brand_is_named_after_the_tenant_when_no_other_name_is_given(database: None) -> None:
    made = create(address())

    brands = JSONClient().get("/api/brands", HTTP_X_API_KEY=made["api_key"]).json()["data"]

    assert [brand["name"] for brand in brands] == ["Erin's"]


def test_a_limit_of_its_own_replaces_the_plans(database: None) -> None:
    made = create(address(), "--storage-limit", "12345")

    with system_scope("a test looks"):
        usage = QuotaUsage.objects.get(tenant_id=made["tenant_id"])
    assert (usage.plan_id, usage.storage_limit_override) == ("starter", 12345)


def test_without_json_it_prints_a_line_a_value(database: None) -> None:
    text = run("create_tenant", "--name", "Erin's", "--tier", "free", "--email", address(), "--password", PASSWORD)

    assert [line.split()[0] for line in text.splitlines()] == ["tenant_id", "brand_id", "user_id", "api_key"]


def test_somebody_with_an_account_owns_a_second_tenant_with_it(database: None) -> None:
    email = address()
    first, second = create(email), create(email.upper())

    assert first["user_id"] == second["user_id"]
    assert {row["tenant_id"] for row in me(log_in(email))["memberships"]} == {first["tenant_id"], second["tenant_id"]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"email": "not an address"}, "not an e-mail address"),
        ({"tier": "platinum"}, "no plan 'platinum'"),
        ({"password": " "}, "--password"),
        ({"name": ""}, "--name"),
        ({"storage_limit": -1}, "0 bytes or more"),
    ],
)
def test_it_says_what_is_wrong_and_makes_nothing(database: None, arguments: dict[str, Any], words: str) -> None:
    email = address()
    given = {"name": "Erin's", "tier": "free", "email": email, "password": PASSWORD, **arguments}

    with pytest.raises(CommandError, match=words):
        call_command("create_tenant", **given)

    assert not User.objects.filter(email=email).exists()


def test_it_does_not_take_over_an_account_with_another_password(charlie: Person) -> None:
    with pytest.raises(CommandError, match="another password"):
        create(charlie.email, password="another-password-1")

    with system_scope("a test looks"):
        assert Membership.objects.filter(user_id=charlie.user_id).count() == 1


def staff(email: str, password: str = "staff-password-1") -> dict[str, Any]:
    return json.loads(run("ensure_staff", "--email", email, "--password", password, "--json"))


def test_it_makes_a_member_of_staff(database: None) -> None:
    email = address("staff")

    assert staff(email) == {"email": email, "password": "staff-password-1"}

    user = User.objects.get(email=email)
    assert (user.is_staff, user.is_superuser, user.is_active) == (True, True, True)
    assert me(log_in(email, "staff-password-1"))["is_staff"]


def test_making_the_same_one_again_leaves_its_sessions_alone(database: None) -> None:
    email = address("staff")
    staff(email)
    session = log_in(email, "staff-password-1")

    staff(email)

    assert me(session)["is_staff"]


def test_an_account_that_somebody_else_made_first_becomes_staff_and_nobody_elses(charlie: Person) -> None:
    email = address("admin")
    logged_in(charlie).api.post("/api/members", {"email": email, "role": "viewer", "password": "known-to-charlie"})
    stranger = log_in(email, "known-to-charlie")
    User.objects.filter(email=email).update(is_active=False)

    staff(email)

    assert me(log_in(email, "staff-password-1"))["is_staff"]
    assert JSONClient().get("/api/auth/me", **stranger).status_code == 401  # type: ignore[arg-type]
    assert JSONClient().post("/api/auth/login", {"email": email, "password": "known-to-charlie"}).status_code == 401


def test_a_password_is_made_up_once_and_kept_for_its_owner_alone(database: None, tmp_path: Path, settings: Any) -> None:
    settings.DATA_DIR = tmp_path / "data"
    email = address("staff")

    first = json.loads(run("ensure_staff", "--email", email, "--json"))
    second = json.loads(run("ensure_staff", "--email", email, "--json"))

    kept = tmp_path / "data" / "admin-password"
    assert first == second
    assert len(first["password"]) >= 16
    assert kept.read_text() == first["password"]
    assert kept.stat().st_mode & 0o777 == 0o600
    assert me(log_in(email, first["password"]))["is_staff"]


def test_a_password_file_that_was_cut_off_is_written_anew(database: None, tmp_path: Path, settings: Any) -> None:
    settings.DATA_DIR = tmp_path
    (tmp_path / "admin-password").touch()

    assert json.loads(run("ensure_staff", "--email", address("staff"), "--json"))["password"]


def test_staff_need_an_address(database: None) -> None:
    with pytest.raises(CommandError, match="not an e-mail address"):
        staff("nobody")


def test_the_ids_are_uuids(database: None) -> None:
    made = create(address())

    assert all(UUID(made[name]) for name in ("tenant_id", "brand_id", "user_id"))


def test_a_tenant_has_a_time_zone(database: None) -> None:
    made = create(address(), "--time-zone", "Asia/Tokyo")

    key = {"HTTP_X_API_KEY": made["api_key"]}
    assert JSONClient().get("/api/tenant", **key).json()["time_zone"] == "Asia/Tokyo"


def test_an_unknown_time_zone_is_refused(database: None) -> None:
    email = address()

    with pytest.raises(CommandError, match="no such time zone"):
        create(email, "--time-zone", "Mars/Olympus")

    assert not User.objects.filter(email=email).exists()
