"""Dirty old rows: a few good ones and one of every kind of dirt, each named after what is wrong with it."""

import json
from collections.abc import Mapping
from typing import Any, TypeAlias

from content.legacy.sample import Row, Sample
from content.legacy.sample_rows import FILES, FIRST_DAY, Studio, id_of, old_time, people_of_studios
from content.models import ContentType

GOOD = "good"
STUDIOS = (
    Studio("Dusty Attic", "business", ("Dusty",), (("Dora", "Dust"), ("Malik", "Moth")), ()),
    Studio("Rusty Cellar", "platinum_2019", ("Rusty",), (("Rita", "Rust"),), ()),  # a plan that there is not
)
ATTIC, CELLAR = STUDIOS
TENANT, BRAND, USER = id_of(ATTIC.name), id_of(ATTIC.name, "Dusty"), id_of(ATTIC.name, "Dora", "Dust")
BAD_MAIL_USER = id_of(ATTIC.name, "Malik", "Moth")
NOBODY = id_of("nobody")  # in no table
TWICE = id_of("in both tables")
LONG_TITLE = "A title that does not end, " * 20
LARGE_BODY = "A body of more than one mebibyte. " * 31_000
HTML_BODY = (
    '<div class="post"><h1>Heading</h1><p onclick="alert(1)">Text &amp; <b>more</b><script>alert(1)</script></p></div>'
)
DEEP = json.dumps({"deep": json.loads('{"in": ' * 24 + "1" + "}" * 24)})

Changes: TypeAlias = Mapping[str, str | int | None]


def dirty() -> Sample:
    """Return the dirty set."""
    people = people_of_studios(STUDIOS, mail="dirty.legacy.example")
    users = [{**user, "email": "malik at moth"} if user["id"] == BAD_MAIL_USER else user for user in people["users"]]
    tables: dict[str, list[tuple[str, Row]]] = {
        "tenants": [(_unless(one["id"] == id_of(CELLAR.name), "unknown_plan_tier"), one) for one in people["tenants"]],
        "brands": [(GOOD, one) for one in people["brands"]],
        "users": [(_unless(one["id"] == BAD_MAIL_USER, "invalid_email"), one) for one in users],
        "content_items": [_item(number, kind, changes) for number, (kind, changes) in enumerate(_items())],
        "campaign_assets": [_asset(number, kind, changes) for number, (kind, changes) in enumerate(_assets())],
    }
    return Sample(
        rows={table: [row for _, row in rows] for table, rows in tables.items()},
        kinds={table: {str(row["id"]): kind for kind, row in rows} for table, rows in tables.items()},
    )


def _unless(is_dirty: bool, kind: str) -> str:  # noqa: FBT001 -- reads like a sentence where it is used
    return kind if is_dirty else GOOD


def _common(table: str, *, title: str, kind: str) -> list[tuple[str, Changes]]:
    """Return the kinds that both tables have, with what they change in a good row."""
    return [
        ("null_title", {title: None}),
        ("blank_title", {title: " \t "}),
        ("long_title", {title: LONG_TITLE}),
        ("unknown_type", {kind: "hologram"}),
        ("null_type", {kind: None}),
        ("null_tenant", {"tenant_id": None}),
        ("orphan_tenant", {"tenant_id": id_of("a tenant that was deleted")}),
        ("unknown_brand", {"brand_id": id_of("a brand that was deleted")}),
        ("null_brand", {"brand_id": None}),
        ("brand_of_other_tenant", {"brand_id": id_of(CELLAR.name, "Rusty")}),
        ("no_uuid_id", {"id": f"{table}-17"}),
        ("upper_case_uuid", {"id": id_of("upper case", table).upper()}),
        ("id_in_both_tables", {"id": TWICE}),
        ("null_created_at", {"created_at": None}),
        ("updated_before_created", {"updated_at": "2019-05-05 05:05:05"}),
        (
            "tenant_with_unknown_plan",
            {
                "tenant_id": id_of(CELLAR.name),
                "brand_id": id_of(CELLAR.name, "Rusty"),
                "user_id": id_of(CELLAR.name, "Rita", "Rust"),
            },
        ),
        ("unknown_user", {"user_id": NOBODY}),
        ("null_user", {"user_id": None}),
        ("user_with_invalid_email", {"user_id": BAD_MAIL_USER}),
    ]


def _items() -> list[tuple[str, Changes]]:
    def metadata(value: Any) -> Changes:
        return {"content_metadata": json.dumps(value)}

    return [
        (GOOD, {}),
        (GOOD, {"content_type": "article", "status": "archived"}),
        (GOOD, {"status": "scheduled", **metadata({"scheduled_at": "2099-01-01T08:00:00"})}),
        *_common("content_items", title="title", kind="content_type"),
        ("unknown_status", {"status": "in_review"}),
        ("null_status", {"status": None}),
        ("scheduled_without_time", {"status": "scheduled"}),
        ("null_body", {"content_body": None}),
        ("html_body", {"content_body": HTML_BODY}),
        ("body_over_1_mib", {"content_body": LARGE_BODY}),
        ("invalid_json", {"content_metadata": '{"tags": ["one", "two"'}),
        ("metadata_no_object", metadata(["a", "list"])),
        ("tags_no_list", metadata({"tags": {"one": 1}})),
        ("long_tag", metadata({"tags": ["t" * 101]})),
        ("too_many_tags", metadata({"tags": [f"tag {number}" for number in range(101)]})),
        ("null_character", metadata({"note": "before\0after"})),
        ("metadata_too_deep", {"content_metadata": DEEP}),
    ]


def _assets() -> list[tuple[str, Changes]]:
    text = {"file_url": None, "public_url": None, "mime_type": None, "file_size_bytes": None}
    no_text = {"headline_text": None, "ad_copy_text": None, "description": None, "cta_text": None}
    return [
        (GOOD, {}),
        (GOOD, {"asset_type": "video", "mime_type": "video/mp4", "file_url": f"{FILES}/good.mp4"}),
        *_common("campaign_assets", title="asset_name", kind="asset_type"),
        ("null_body", no_text),
        ("html_body", {"ad_copy_text": HTML_BODY}),
        ("body_over_1_mib", {"ad_copy_text": LARGE_BODY}),
        ("invalid_json", {"tags": '["one", "two"'}),
        ("tags_no_list", {"tags": '{"one": 1}'}),
        ("long_tag", {"tags": json.dumps(["t" * 101])}),
        ("too_many_tags", {"tags": json.dumps([f"tag {number}" for number in range(101)])}),
        ("null_character", {"tags": json.dumps(["before\0after"])}),
        ("deleted", {"deleted_at": "2024-03-01 12:00:00"}),
        ("file_over_http", {"file_url": "http://files.legacy.example/plain.jpg"}),
        ("file_no_url", {"file_url": "the picture from Tuesday"}),
        ("file_at_loopback", {"file_url": "https://127.0.0.1/a.jpg"}),
        ("file_at_private_address", {"file_url": "https://10.0.0.8/a.jpg"}),
        ("file_at_metadata_service", {"file_url": "https://169.254.169.254/latest/meta-data"}),
        ("file_at_loopback_v6", {"file_url": "https://[::1]/a.jpg"}),
        ("file_at_localhost", {"file_url": "https://localhost/a.jpg"}),
        ("text_ad_copy", {**text, "asset_type": "ad_copy"}),
        ("text_headline", {**text, **no_text, "asset_type": "headline", "headline_text": "Only a heading"}),
        ("text_description", {**text, "asset_type": "description", "headline_text": None}),
        ("text_document", {**text, "asset_type": "document", "cta_text": None}),
        ("no_text_no_file", {**text, **no_text}),
    ]


def _item(number: int, kind: str, changes: Changes) -> tuple[str, Row]:
    return kind, {
        "id": id_of("dirty item", number),
        **_whose(),
        "title": f"Item {number}: {kind}",
        "content_body": f"The body of a row that is {kind}.",
        "content_type": ContentType.POST,
        "status": "published",
        "content_metadata": json.dumps({"tags": ["dirty"], "what": kind}),
        **_times(number),
        **changes,
    }


def _asset(number: int, kind: str, changes: Changes) -> tuple[str, Row]:
    return kind, {
        "id": id_of("dirty asset", number),
        **_whose(),
        "asset_name": f"Asset {number}: {kind}",
        "asset_type": "image",
        "headline_text": f"Heading {number}",
        "ad_copy_text": "Copy",
        "description": f"An asset that is {kind}.",
        "cta_text": "Look",
        "file_url": f"{FILES}/dirty/{number}.png",
        "mime_type": "image/png",
        "file_size_bytes": 1234,
        "external_asset_id": kind,
        "tags": '["dirty"]',
        **_times(number),
        **changes,
    }


def _whose() -> dict[str, str]:
    return {"tenant_id": TENANT, "brand_id": BRAND, "user_id": USER}


def _times(number: int) -> dict[str, str]:
    made = FIRST_DAY.replace(hour=6, minute=number % 60)
    return {"created_at": old_time(made), "updated_at": old_time(made)}
