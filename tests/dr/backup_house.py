"""What tests of the backup's state share: a state that is well, staff, and a clock that is set by what waits."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from uuid_utils.compat import uuid7

from content.models import Change
from dr import states
from dr.models import Batch, SyncState
from engarde.accounts.models import Mail, User
from engarde.common.scopes import system_scope
from tests.people import PASSWORD, JSONClient, log_in


def make_well() -> None:
    """Forget what tests left behind: failures, a pause, alerts, batches without rows, and that others were set aside."""
    fresh = SyncState()
    kept = {"id", "epoch"}
    names = [field.name for field in SyncState._meta.concrete_fields if field.name not in kept]
    SyncState.objects.filter(id=1).update(**{name: getattr(fresh, name) for name in names})
    Batch.objects.filter(rows=0).delete()
    Batch.objects.filter(acked_at=None).update(set_aside_at=None)
    Mail.objects.filter(kind__startswith="backup").delete()


def row(**fields: Any) -> SyncState:
    """Change the state's row behind everybody's back, and return it as it is."""
    states.row()
    if fields:
        SyncState.objects.filter(id=1).update(**fields)
    return SyncState.objects.get(id=1)


def oldest() -> datetime:
    """Return when the oldest change was made that waits; there has to be one."""
    with system_scope("a test looks"):
        found = states.oldest_waiting_at()
    assert found
    return found


def after(**waited: float) -> datetime:
    """Return the time at which the oldest change has waited for so long."""
    return oldest() + timedelta(**waited)


class _Back(Exception):
    """Takes back what happened in a scope."""


@contextmanager
def nothing_waits() -> Iterator[None]:
    """Run in a system scope in which the archive has everything; it is taken back afterwards."""
    try:
        with system_scope("a test imagines"):
            Change.objects.filter(acked_at=None).update(acked_at="2020-01-01T00:00:00Z")
            yield
            raise _Back
    except _Back:
        pass


def batch(**fields: Any) -> Batch:
    """Make a sealed batch without rows, that nobody ships before long."""
    values = {"rows": 0, "first_seq": 1, "last_seq": 1, "horizon": 1, "next_try_at": "2100-01-01T00:00:00Z", **fields}
    return Batch.objects.create(**{"id": uuid7(), **values})


def new_user(name: str, *permissions: str, **fields: Any) -> User:
    """Make a user who may do some things in the admin."""
    user = User.objects.create_user(f"{name}-{uuid4().hex[:12]}@example.com", PASSWORD, **fields)
    for codename in permissions:
        user.user_permissions.add(Permission.objects.get(codename=codename, content_type__app_label="dr"))
    return user


def api_of(user: User) -> JSONClient:
    """Return a client that sends a user's access token."""
    client = JSONClient()
    client.credentials(**log_in(user.email))
    return client


def browser_of(user: User, **options: Any) -> Client:
    """Return a browser in which a user is logged in."""
    browser = Client(**options)
    browser.force_login(user)
    return browser


def metric(name: str) -> float:
    """Return the value of a line of /metrics."""
    text = JSONClient().get("/metrics").content.decode()
    found = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    assert found, name
    connection.close()
    return float(found[0].rpartition(" ")[2])
