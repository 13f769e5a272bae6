"""The reference set arrives with its totals in all three tiers; of the dirty set every bad row is named, with the reason."""

import json
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.db import connection

from content.legacy.sample_dirt import GOOD

REASONS: dict[str, dict[str, str]] = {
    "content_items": {
        "null_title": "no_title",
        "blank_title": "no_title",
        "long_title": "title_too_long",
        "unknown_type": "unknown_type",
        "null_type": "no_type",
        "null_tenant": "no_tenant",
        "orphan_tenant": "unknown_tenant",
        "unknown_brand": "unknown_brand",
        "brand_of_other_tenant": "unknown_brand",
        "unknown_status": "unknown_status",
        "scheduled_without_time": "no_time",
        "body_over_1_mib": "body_too_large",
        "invalid_json": "bad_metadata",
        "metadata_no_object": "bad_metadata",
        "tags_no_list": "bad_list",
        "long_tag": "bad_list",
        "too_many_tags": "bad_list",
        "null_character": "bad_metadata",
        "metadata_too_deep": "bad_metadata",
    },
    "campaign_assets": {
        "long_title": "title_too_long",
        "unknown_type": "unknown_type",
        "null_type": "no_type",
        "null_tenant": "no_tenant",
        "orphan_tenant": "unknown_tenant",
        "unknown_brand": "unknown_brand",
        "brand_of_other_tenant": "unknown_brand",
        "body_over_1_mib": "body_too_large",
        "invalid_json": "bad_metadata",
        "tags_no_list": "bad_list",
        "long_tag": "bad_list",
        "too_many_tags": "bad_list",
        "null_character": "bad_list",
        "file_no_url": "bad_file_url",
        "file_at_loopback": "private_address",
        "file_at_private_address": "private_address",
        "file_at_metadata_service": "private_address",
        "file_at_loopback_v6": "private_address",
        "file_at_localhost": "private_address",
        "no_text_no_file": "empty_asset",
    },
}
NOTED = {
    "content_items": {
        "null_created_at": "no_created_at",
        "updated_before_created": "updated_before_created",
        "unknown_user": "unknown_user",
        "user_with_invalid_email": "unknown_user",
        "tenant_with_unknown_plan": "unknown_plan",
    },
    "campaign_assets": {
        "null_created_at": "no_created_at",
        "updated_before_created": "updated_before_created",
        "unknown_user": "unknown_user",
        "user_with_invalid_email": "unknown_user",
        "id_in_both_tables": "id_taken",
    },
}
"""What comes all the same, with a note. A tenant's own note is given with the first of its rows that comes."""
LEFT_BEHIND = {"deleted"}


@pytest.fixture(autouse=True)
def schema(database: None, settings: Any) -> Iterator[None]:
    """A schema of this test's own."""
    settings.LEGACY_SCHEMA = f"legacy_{uuid4().hex[:8]}"
    yield
    with connection.cursor() as cursor:
        cursor.execute(f"DROP SCHEMA IF EXISTS {settings.LEGACY_SCHEMA} CASCADE")


def run(command: str, *options: str) -> tuple[int, dict[str, Any]]:
    """Run a command and return its exit code and report."""
    out, exit_code = StringIO(), 0
    try:
        call_command(command, *options, "--json", stdout=out)
    except SystemExit as end:
        exit_code = int(end.code or 0)
    return exit_code, json.loads(out.getvalue())


@pytest.mark.soak
def test_the_reference_set_arrives_with_its_totals_in_all_three_tiers(
    upload: Callable[[], int], back_up: Callable[[], int]
) -> None:
    run("load_legacy_sample")
    commands = ("migrate_content_items_to_zerodb", "migrate_campaign_assets_to_zerodb")

    rehearsed = [run(command, "--dry-run")[1] for command in commands]
    done = [run(command) for command in commands]
    again = [run(command)[1] for command in commands]

    assert [code for code, _ in done] == [0, 0]
    reports = [report for _, report in done]
    assert [report["created"] for report in reports] == [report["created"] for report in rehearsed] == [140, 35]
    assert sum(report["bytes"] for report in reports) == sum(report["bytes"] for report in rehearsed) == 6328
    assert sum(report["media"] for report in reports) == 35
    assert sum(report["checksums"]["equal"] for report in reports) == 175
    tenants = set(reports[0]["tenants"]) | set(reports[1]["tenants"])
    assert len(tenants) == 4
    assert [(report["created"], report["unchanged"], report["failed"]) for report in again] == [(0, 140, 0), (0, 35, 0)]

    upload()
    back_up()
    usage = [run("backfill_storage_usage", "--tenant", tenant)[1] for tenant in tenants]
    assert sum(report["bytes"] for report in usage) == 6328
    assert sum(report["changed"] for report in usage) == 0
    counted = [report["tenants"][tenant] for report in usage for tenant in report["tenants"]]
    assert sum(one["content_items"] for one in counted) == 175
    assert sum(one["media_files"] for one in counted) == 35
    for tenant in tenants:
        code, verified = run("verify_backup_integrity", "--tenant", tenant, "--deep")
        assert (code, verified["mismatched"], verified["missing"], verified["extra"]) == (0, 0, 0, 0)
        assert verified["checked"] > 0


@pytest.mark.parametrize("table", REASONS)
def test_every_bad_row_is_named_with_its_reason_and_all_others_come(table: str) -> None:
    _, loaded = run("load_legacy_sample", "--dirty")
    kinds = {old_id: kind for old_id, kind in loaded[table]["kinds"].items() if kind not in LEFT_BEHIND}

    code, report = run(f"migrate_{table}_to_zerodb", "--no-files")

    assert code == 1
    named = {kinds[error["id"]]: error["code"] for error in report["errors"]}
    assert named == REASONS[table]
    assert all(error["message"] for error in report["errors"])
    assert report["created"] == len(kinds) - len(named)
    assert GOOD not in named
    noted = {kinds[warning["id"]]: warning["code"] for warning in report["warnings"]}
    assert noted.items() >= {kind: code for kind, code in NOTED[table].items() if code != "unknown_plan"}.items()
    assert set(noted.values()) <= set(NOTED[table].values()) | {"unknown_plan"}
