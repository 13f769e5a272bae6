"""Fixtures for all tests: the migrated database, people, and the carriers run by hand.

Tests commit for real, as other processes must see what they write; each works in tenants of its own, so none is in
another's way and nothing is rolled back.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from tests import people
from tests.people import Person


@pytest.fixture(scope="session")
def django_db_setup(django_db_blocker: Any) -> Iterator[None]:
    """Migrate the throw-away database instead of making a second one beside it."""
    with django_db_blocker.unblock():
        _do_not_wait_for_the_disk()
        call_command("migrate", verbosity=0)
        call_command("setup_zerodb", stdout=_Nowhere())
        call_command("setup_bigquery", stdout=_Nowhere())
        yield


def _do_not_wait_for_the_disk() -> None:
    """Have commits in connections to come return before they are on disk: no test takes the machine's power away."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER ROLE CURRENT_USER SET synchronous_commit = off")
    connection.close()


class _Nowhere:
    def write(self, _text: str) -> None:
        """Drop what a command prints."""


@pytest.fixture
def database(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """Access to the database, with real commits."""
    with django_db_blocker.unblock():
        yield


@pytest.fixture(autouse=True)
def _fast_settings(settings: Any) -> None:
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.WHITENOISE_AUTOREFRESH = True  # else each test client looks at every static file


@pytest.fixture(autouse=True)
def _fresh_process() -> None:
    """Nothing that a test made this process remember, or be wary of, reaches the next."""
    from content import documents
    from engarde import health
    from engarde.common import redis

    documents.start_afresh()
    health.forget()
    redis.forget_failures()


@pytest.fixture
def alice(database: None) -> Person:
    """Owner of a tenant, with its API key."""
    return people.new_owner("alice")


@pytest.fixture
def bob(alice: Person) -> Person:
    """Alice's colleague, an editor who is logged in."""
    return people.new_colleague(alice)


@pytest.fixture
def charlie(database: None) -> Person:
    """An outsider: owner of another tenant."""
    return people.new_owner("charlie")


@pytest.fixture
def upload(database: None) -> Callable[[], int]:
    """Run the uploader until nothing is due and return how many documents went to ZeroDB."""
    from content import documents, uploader

    def run() -> int:
        store, total = documents.document_store(), 0
        assert store is not None
        while not (done := uploader.run_pass(store=store, now=timezone.now)).is_idle and not done.failed:
            total += done.uploaded
        return total

    return run


@pytest.fixture
def back_up(database: None) -> Callable[[], int]:
    """Run the backup until nothing is due and return how many changes it shipped."""
    from dr import sync

    def run() -> int:
        total = 0
        while (done := sync.run_pass(now=timezone.now)).shipped:
            assert done.status == "healthy", done.reason
            total += done.rows
        return total

    return run
