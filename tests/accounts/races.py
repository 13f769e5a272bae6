"""Races that happen every time: all callers stand at the same locked rows before any of them goes on."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from django.db import connection
from django.db.models import QuerySet

from engarde.common.scopes import system_scope

WAITING = "SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted"
LOOKS = 20_000


def race(calls: Sequence[Callable[[], Any]], *, at: QuerySet[Any]) -> list[Any]:
    """Run calls in threads, hold them at the rows of `at` until all wait there (or are done), and return what they did.

    A call that raises has its exception for a result.
    """
    with ThreadPoolExecutor(len(calls)) as pool:
        with system_scope("a test holds rows"):
            assert list(at.select_for_update()), "no rows to wait at"
            futures = [pool.submit(_run, call) for call in calls]
            assert any(_all_wait(futures) for _ in range(LOOKS)), "the calls never came to the rows"
        return [future.result() for future in futures]


def _run(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:  # noqa: BLE001 -- the test looks at whatever it is
        return error
    finally:
        connection.close()


def _all_wait(futures: list["Future[Any]"]) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(WAITING)
        return int(cursor.fetchone()[0]) >= sum(not future.done() for future in futures)
