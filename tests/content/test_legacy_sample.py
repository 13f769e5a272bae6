"""`load_legacy_sample`: old data that is always the same, in a schema that is nobody else's."""

import json
from collections.abc import Iterator
from io import StringIO
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from content.legacy import sample, sample_dirt, sample_rows
from content.models import ContentType, Status


@pytest.fixture(autouse=True)
def schema(database: None, settings: Any) -> Iterator[str]:
    """A schema of this test's own."""
    settings.LEGACY_SCHEMA = "legacy_of_a_test"
    yield settings.LEGACY_SCHEMA
    execute("DROP SCHEMA IF EXISTS legacy_of_a_test CASCADE")


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def rows(table: str) -> list[dict[str, Any]]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM legacy_of_a_test.{table} ORDER BY id")
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def load(*options: str) -> dict[str, Any]:
    out = StringIO()
    call_command("load_legacy_sample", "--json", *options, stdout=out)
    return json.loads(out.getvalue())


def everything() -> dict[str, list[dict[str, Any]]]:
    return {table: rows(table) for table in sample.TABLES}


def test_the_reference_set_has_the_totals_of_the_mission() -> None:
    report = load()

    assert report == {
        "schema": "legacy_of_a_test",
        "tenants": {"rows": 4},
        "brands": {"rows": 6},
        "users": {"rows": 8},
        "content_items": {"rows": 140},
        "campaign_assets": {"rows": 35},
    }
    bodies = [row["content_body"] for row in rows("content_items")]
    bodies += ["\n\n".join(text for text in texts(row) if text) for row in rows("campaign_assets")]
    assert sum(len(body.encode()) for body in bodies) == 6328


def texts(asset: dict[str, Any]) -> list[str | None]:
    return [asset[name] for name in ("headline_text", "ad_copy_text", "description", "cta_text")]


def test_the_reference_set_is_valid_and_has_variety() -> None:
    load()
    items, assets = rows("content_items"), rows("campaign_assets")
    tenants = {row["id"]: row["plan_tier"] for row in rows("tenants")}
    brands = {row["id"]: row["tenant_id"] for row in rows("brands")}
    users = {row["id"] for row in rows("users")}

    assert len(set(tenants.values())) == 4
    assert {row["content_type"] for row in items} == set(ContentType.values)
    assert {row["status"] for row in items} == set(Status.values) - {"scheduled"}
    assert {row["asset_type"] for row in assets} == {"image", "video"}
    assert {row["tenant_id"] for row in items} == {row["tenant_id"] for row in assets} == tenants.keys()
    assert {row["user_id"] for row in items} == users
    for row in items + assets:
        assert str(UUID(row["id"])) == row["id"]
        assert brands[row["brand_id"]] == row["tenant_id"]
        assert row["created_at"] <= row["updated_at"]
        assert 1 <= len(row.get("title") or row["asset_name"]) <= 300
    assert len({row["id"] for row in items + assets}) == 175
    metadata = [json.loads(row["content_metadata"]) for row in items if row["content_metadata"]]
    for name in ("platforms", "tags", "hashtags", "mentions", "media_urls"):
        assert any(one.get(name) for one in metadata)
        assert any(one.get(name) == [] for one in metadata)
    assert any(one.keys() - {"platforms", "tags", "hashtags", "mentions", "media_urls"} for one in metadata)
    assert all(isinstance(json.loads(row["tags"]), list) for row in assets if row["tags"])
    assert all(row["file_url"].startswith("https://files.legacy.example/") for row in assets)
    bodies = "".join(row["content_body"] for row in items)
    assert "🌸" in bodies
    assert "<strong>" in bodies
    assert not bodies.isascii()


def test_a_set_with_other_totals_is_found_out() -> None:
    good = sample_rows.reference().rows
    short = {table: list(good[table]) for table in good}
    short["content_items"] = short["content_items"][1:]

    with pytest.raises(ValueError, match="should have"):
        sample_rows.require_totals(short, sample_rows.REFERENCE)


@pytest.mark.parametrize("options", [[], ["--dirty"], ["--items", "30"]])
def test_it_is_the_same_each_time(options: list[str]) -> None:
    first_report, first = load(*options), everything()

    assert load("--replace", *options) == first_report
    assert everything() == first


COLUMNS = {
    "content_items": (
        "id tenant_id brand_id user_id title content_body content_type status content_metadata created_at updated_at"
    ),
    "campaign_assets": (
        "id tenant_id brand_id campaign_space_id user_id asset_name asset_type headline_text ad_copy_text description "
        "cta_text file_url public_url mime_type file_size_bytes external_asset_id tags created_at updated_at deleted_at"
    ),
    "tenants": "id name plan_tier",
    "brands": "id tenant_id name",
    "users": "id email first_name last_name",
}


def test_the_columns_are_those_of_the_old_platform() -> None:
    load()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT table_name, column_name, data_type, character_maximum_length FROM information_schema.columns"
            " WHERE table_schema = 'legacy_of_a_test'"
        )
        found = {(table, column): (kind, length) for table, column, kind, length in cursor.fetchall()}

    for table, columns in COLUMNS.items():
        assert {column for place, column in found if place == table} == set(columns.split())
    assert {kind for (_, column), kind in found.items() if column == "id"} == {("character varying", 36)}
    assert {kind for (_, column), (kind, _) in found.items() if column.endswith("_at")} == {
        "timestamp without time zone"
    }


def test_the_dirty_set_names_the_kind_of_each_row() -> None:
    report = load("--dirty")

    for table in sample.TABLES:
        ids = {row["id"] for row in rows(table)}
        assert report[table]["rows"] == len(ids)
        assert report[table]["kinds"].keys() == ids
    items, assets = (report[table]["kinds"] for table in ("content_items", "campaign_assets"))
    for kinds in (items, assets):
        dirty = [kind for kind in kinds.values() if kind != "good"]
        assert len(dirty) == len(set(dirty)), "one of each"
        assert "good" in kinds.values()
    assert items.keys() & assets.keys() == {sample_dirt.TWICE}
    assert "unknown_plan_tier" in report["tenants"]["kinds"].values()
    assert "invalid_email" in report["users"]["kinds"].values()


DIRT = {
    "content_items": {
        "null_title": lambda row: row["title"] is None,
        "blank_title": lambda row: row["title"] and not row["title"].strip(),
        "long_title": lambda row: len(row["title"]) > 300,
        "null_type": lambda row: row["content_type"] is None,
        "unknown_type": lambda row: row["content_type"] not in ContentType.values,
        "unknown_status": lambda row: row["status"] not in Status.values,
        "null_tenant": lambda row: row["tenant_id"] is None,
        "null_body": lambda row: row["content_body"] is None,
        "body_over_1_mib": lambda row: len(row["content_body"]) > 1024**2,
        "upper_case_uuid": lambda row: row["id"] == str(UUID(row["id"])).upper(),
        "null_created_at": lambda row: row["created_at"] is None,
        "updated_before_created": lambda row: row["updated_at"] < row["created_at"],
        "null_character": lambda row: "\0" in json.loads(row["content_metadata"])["note"],
        "long_tag": lambda row: len(json.loads(row["content_metadata"])["tags"][0]) > 100,
        "too_many_tags": lambda row: len(json.loads(row["content_metadata"])["tags"]) > 100,
        "metadata_too_deep": lambda row: row["content_metadata"].count("{") > 20,
        "metadata_no_object": lambda row: not isinstance(json.loads(row["content_metadata"]), dict),
    },
    "campaign_assets": {
        "null_title": lambda row: row["asset_name"] is None,
        "body_over_1_mib": lambda row: len(row["ad_copy_text"]) > 1024**2,
        "null_character": lambda row: "\0" in json.loads(row["tags"])[0],
        "deleted": lambda row: row["deleted_at"],
        "no_text_no_file": lambda row: not any([*texts(row), row["file_url"], row["public_url"]]),
        "null_body": lambda row: row["file_url"] and not any(texts(row)),
        "text_document": lambda row: row["asset_type"] == "document" and any(texts(row)) and not row["file_url"],
        "file_over_http": lambda row: row["file_url"].startswith("http:"),
    },
}


def test_rows_have_the_dirt_that_they_are_named_after() -> None:
    report = load("--dirty")
    for table, checks in DIRT.items():
        by_kind = {report[table]["kinds"][row["id"]]: row for row in rows(table)}
        for kind, is_so in checks.items():
            assert is_so(by_kind[kind]), (table, kind)
    broken = by_kind_of(report, "invalid_json")
    for text in broken:
        with pytest.raises(json.JSONDecodeError):
            json.loads(text)


def by_kind_of(report: dict[str, Any], kind: str) -> list[str]:
    """Return the JSON of this kind's rows."""
    columns = {"content_items": "content_metadata", "campaign_assets": "tags"}
    return [
        row[column]
        for table, column in columns.items()
        for row in rows(table)
        if report[table]["kinds"][row["id"]] == kind
    ]


def test_so_many_items_with_bodies_of_2_kb() -> None:
    report = load("--items", "250")
    items = rows("content_items")

    assert report["content_items"]["rows"] == len(items) == 250
    assert report["campaign_assets"]["rows"] == 0
    assert {len(row["content_body"].encode()) for row in items} == {2048}
    assert len({row["content_body"] for row in items}) == 250
    assert len({row["tenant_id"] for row in items}) == report["tenants"]["rows"] == 4


def test_items_are_made_as_they_are_read() -> None:
    endless = sample_rows.sized(10**12).rows["content_items"]

    assert next(iter(endless))["title"]


def test_a_sample_that_is_there_is_replaced_only_when_told_to() -> None:
    load()
    with pytest.raises(CommandError, match="--replace"):
        load("--items", "3")
    assert len(rows("content_items")) == 140

    load("--items", "3", "--replace")

    assert len(rows("content_items")) == 3


def test_a_schema_that_somebody_else_made_is_left_alone() -> None:
    execute("CREATE SCHEMA legacy_of_a_test")
    execute("CREATE TABLE legacy_of_a_test.content_items (id text)")
    for options in ([], ["--replace"]):
        with pytest.raises(CommandError, match="LEGACY_SCHEMA"):
            load(*options)

    assert rows("content_items") == []
    with pytest.raises(Exception, match="tenants"):
        rows("tenants")


def test_nothing_is_made_beside_the_old_platforms_own_tables() -> None:
    execute("CREATE TABLE public.content_items (id text)")
    try:
        with pytest.raises(CommandError, match=r"public\.content_items"):
            load()
    finally:
        execute("DROP TABLE public.content_items")


def test_it_is_all_or_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    load()

    def broken(_count: int) -> sample.Sample:
        def items() -> Iterator[sample.Row]:
            yield {"id": "one"}
            yield {"id": "one"}

        return sample.Sample({"content_items": items()})

    monkeypatch.setattr(sample_rows, "sized", broken)
    with pytest.raises(CommandError, match="does not take"):
        load("--items", "2", "--replace")

    assert len(rows("content_items")) == 140


def test_it_goes_to_the_legacy_database_when_there_is_one(settings: Any) -> None:
    parameters = connection.get_connection_params()
    names = ("host", "port", "dbname", "user", "password")
    place = psycopg.conninfo.make_conninfo(**{name: parameters[name] for name in names if parameters.get(name)})
    with psycopg.connect(place, autocommit=True, dbname="postgres") as server:
        try:
            server.execute("CREATE DATABASE an_old_database")
        except psycopg.errors.InsufficientPrivilege:
            pytest.skip("the role may not create databases")
        try:
            settings.LEGACY_DATABASE_URL = psycopg.conninfo.make_conninfo(place, dbname="an_old_database")
            load()
            with psycopg.connect(settings.LEGACY_DATABASE_URL) as old:
                assert old.execute("SELECT count(*) FROM legacy_of_a_test.content_items").fetchone() == (140,)
        finally:
            server.execute("DROP DATABASE an_old_database WITH (FORCE)")
    with pytest.raises(Exception, match="does not exist"):
        rows("content_items")


def test_a_database_that_does_not_answer_is_told_as_such(settings: Any) -> None:
    settings.LEGACY_DATABASE_URL = "postgres://nobody@127.0.0.1:1/nowhere"

    with pytest.raises(CommandError, match="does not take the sample"):
        load()


@pytest.mark.parametrize("options", [["--items", "0"], ["--items", "-3"], ["--items", "3", "--dirty"]])
def test_options_that_make_no_sense_are_refused(options: list[str]) -> None:
    with pytest.raises(CommandError):
        load(*options)
