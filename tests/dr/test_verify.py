"""Verification: over equal data it passes; one wrong byte, one missing row, one extra row, and it does not."""

import json
from collections.abc import Callable
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command

from tests import tiers
from tests.people import Person


@pytest.fixture
def item_id(alice: Person, upload: Callable[[], int], back_up: Callable[[], int]) -> str:
    """One of three items of alice's that all tiers have."""
    item_id, *_ = [alice.writes(body=f"body {number}")["id"] for number in range(3)]
    upload()
    back_up()
    return str(item_id)


def verify(person: Person) -> tuple[bool, dict[str, Any]]:
    """Return whether the command succeeded, and its report."""
    out = StringIO()
    try:
        call_command("verify_backup_integrity", "--tenant", str(person.tenant_id), "--json", stdout=out)
        passed = True
    except SystemExit as stop:
        passed = stop.code == 0
    return passed, json.loads(out.getvalue())


def counts(report: dict[str, Any]) -> dict[str, int]:
    return {name: report[name] for name in ("checked", "mismatched", "missing", "extra")}


def test_it_passes_when_all_tiers_agree(alice: Person, item_id: str) -> None:
    passed, report = verify(alice)

    assert passed
    assert counts(report) == {"checked": 3, "mismatched": 0, "missing": 0, "extra": 0}


def test_a_document_that_is_still_in_the_spool_matches(alice: Person, back_up: Callable[[], int]) -> None:
    alice.writes()
    back_up()

    assert verify(alice)[0]


def test_it_finds_a_document_that_zerodb_lost(alice: Person, item_id: str) -> None:
    [row] = tiers.zerodb_rows(item_id)
    tiers.zerodb("DELETE", f"/rows/{row['row_id']}")

    passed, report = verify(alice)

    assert not passed
    assert counts(report) == {"checked": 3, "mismatched": 0, "missing": 1, "extra": 0}
    assert [(found["id"], found["tier"]) for found in report["findings"]] == [(item_id, "zerodb")]


@pytest.mark.parametrize(
    "damage",
    [
        "document = REPLACE(document, 'body 0', 'body O')",
        "facts = REPLACE(facts, 'create', 'update')",
        "row_hash = 'x'",
    ],
)
def test_it_finds_one_wrong_byte_in_the_backup(alice: Person, item_id: str, damage: str) -> None:
    tiers.bigquery(f"UPDATE {{table}} SET {damage} WHERE entity_id = '{item_id}'")

    passed, report = verify(alice)

    assert not passed
    assert counts(report) == {"checked": 3, "mismatched": 1, "missing": 0, "extra": 0}
    assert [(found["id"], found["tier"]) for found in report["findings"]] == [(item_id, "bigquery")]


def test_it_finds_a_row_that_the_backup_lost(alice: Person, item_id: str) -> None:
    tiers.bigquery(f"DELETE FROM {{table}} WHERE entity_id = '{item_id}'")

    assert counts(verify(alice)[1]) == {"checked": 3, "mismatched": 0, "missing": 1, "extra": 0}


def test_it_finds_an_item_that_only_the_backup_has(alice: Person, item_id: str) -> None:
    tiers.lose_postgres_rows(item_id)

    assert counts(verify(alice)[1]) == {"checked": 2, "mismatched": 0, "missing": 0, "extra": 1}


def test_an_unknown_tenant_is_an_error(database: None) -> None:
    with pytest.raises(CommandError, match="no tenant"):
        call_command("verify_backup_integrity", "--tenant", str(uuid4()))
