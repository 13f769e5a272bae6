"""Media files over HTTP: sending, listing, fetching whole and in part, deleting, and who may."""

import hashlib
from io import BytesIO
from typing import Any
from uuid import uuid4

import pytest
from django.conf import LazySettings
from django.db import connection
from django.test.utils import CaptureQueriesContext
from PIL import Image

from content import tasks
from engarde.accounts.roles import Role
from tests import people
from tests.content.media_files import (
    URL,
    age,
    body_of,
    counted,
    everything,
    incoming,
    picture,
    rows,
    send,
    stored_bytes,
    upload,
    uploaded,
)
from tests.people import JSONClient, Person

TEXT = b"The quick brown fox jumps over the lazy dog."


def problem(answer: Any, status: int, code: str) -> dict[str, Any]:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.content
    assert answer["Content-Type"] == "application/problem+json"
    body: dict[str, Any] = answer.json()
    return body


# Sending


def test_it_says_what_was_stored(alice: Person) -> None:
    content = picture("PNG", (40, 30))

    answer = upload(alice, content, "Red & Blue ü.png")

    media = answer.json()
    assert answer.status_code == 201
    assert answer["Location"] == f"{URL}/{media['id']}"
    assert {**media, "id": 0, "url": 0, "thumbnail_url": 0, "created_at": 0} == {
        "id": 0,
        "content_id": None,
        "file_name": "Red & Blue ü.png",
        "file_type": "image",
        "mime_type": "image/png",
        "size_bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
        "url": 0,
        "thumbnail_url": 0,
        "width": 40,
        "height": 30,
        "created_at": 0,
    }
    assert alice.api.get(f"{URL}/{media['id']}").json() == media
    assert incoming() == []


def test_what_is_not_an_image_has_no_width_and_no_thumbnail(alice: Person) -> None:
    media = uploaded(alice, TEXT, "fox.txt")

    assert not media.keys() & {"width", "height", "thumbnail_url"}
    problem(alice.api.get(f"{URL}/{media['id']}/thumbnail"), 404, "not_found")


def test_an_empty_file_is_a_file(alice: Person) -> None:
    media = uploaded(alice, b"", "empty")

    assert (media["size_bytes"], media["file_type"]) == (0, "other")
    answer = alice.api.get(f"{URL}/{media['id']}/download")
    assert (answer.status_code, answer["Content-Length"], body_of(answer)) == (200, "0", b"")


def test_bytes_are_stored_under_a_key_that_nobody_chose(alice: Person) -> None:
    from django.conf import settings

    uploaded(alice, TEXT, "name.exe")

    [path] = [one for one in (settings.MEDIA_ROOT / str(alice.tenant_id)).rglob("*") if one.is_file()]
    assert "name" not in path.name
    assert path.read_bytes() == TEXT


# Listing


def test_it_lists_the_newest_first_by_pages(alice: Person) -> None:
    ids = [uploaded(alice, TEXT + bytes([number + 65]))["id"] for number in range(5)][::-1]

    first = alice.api.get(URL, {"pageSize": 2}).json()
    last = alice.api.get(URL, {"pageSize": 2, "page": 3}).json()

    assert [media["id"] for media in first["data"]] == ids[:2]
    assert [media["id"] for media in last["data"]] == ids[4:]
    assert (first["pagination"]["total"], first["pagination"]["hasNext"], last["pagination"]["hasNext"]) == (
        5,
        True,
        False,
    )


def test_it_lists_what_is_of_a_kind_or_for_an_item(alice: Person) -> None:
    item_id = alice.writes()["id"]
    image, text = uploaded(alice, picture())["id"], uploaded(alice, TEXT, content_id=item_id)["id"]

    def found(**query: str) -> list[str]:
        return [media["id"] for media in alice.api.get(URL, query).json()["data"]]

    assert found(file_type="image") == [image]
    assert found(file_type="document") == [text]
    assert found(content_id=item_id) == [text]
    assert found(content_id=str(uuid4())) == []


def test_a_list_costs_as_many_statements_with_one_file_as_with_twenty(alice: Person) -> None:
    def statements() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert alice.api.get(URL).status_code == 200
        return len(queries)

    uploaded(alice, TEXT)
    alice.api.get("/api/auth/me")  # notes the key's last use
    with_one = statements()
    for number in range(19):
        uploaded(alice, bytes([number]))

    assert statements() == with_one


@pytest.mark.parametrize(
    "query", ["page=0", "pageSize=101", "file_type=picture", "content_id=5", "sort=size", "page=1&page=2"]
)
def test_it_refuses_a_query_that_it_does_not_know(alice: Person, query: str) -> None:
    problem(alice.api.get(f"{URL}?{query}"), 400, "validation_error")


# Fetching


def download(person: Person, media: dict[str, Any], method: str = "get", **headers: str) -> Any:
    return getattr(person.api, method)(f"{URL}/{media['id']}/download", **headers)


def test_it_gives_the_file_back(alice: Person) -> None:
    media = uploaded(alice, TEXT, "fox.txt")

    answer = download(alice, media)

    assert (answer.status_code, body_of(answer)) == (200, TEXT)
    assert answer.streaming
    assert answer["Content-Type"] == "text/plain; charset=utf-8"
    assert answer["Content-Length"] == str(len(TEXT))
    assert answer["ETag"] == f'"{media["sha256"]}"'
    assert answer["Accept-Ranges"] == "bytes"
    assert answer["Cache-Control"].startswith("private, max-age=")
    assert "X-API-Key" in answer["Vary"]


@pytest.mark.parametrize(
    ("wanted", "begin", "end"),
    [
        ("bytes=0-3", 0, 4),
        ("bytes=4-", 4, 44),
        ("bytes=-4", 40, 44),
        ("bytes=-1000", 0, 44),
        ("bytes=43-43", 43, 44),
        ("bytes=40-99999999999999999999999", 40, 44),
        ("BYTES = 0-0", 0, 1),
    ],
)
def test_it_gives_the_part_that_a_range_names(alice: Person, wanted: str, begin: int, end: int) -> None:
    answer = download(alice, uploaded(alice, TEXT), HTTP_RANGE=wanted)

    assert (answer.status_code, body_of(answer)) == (206, TEXT[begin:end])
    assert answer["Content-Range"] == f"bytes {begin}-{end - 1}/44"
    assert answer["Content-Length"] == str(end - begin)


@pytest.mark.parametrize("wanted", ["bytes=44-", "bytes=99999999999999999999999999-", "bytes=-0"])
def test_a_range_outside_the_file_is_not_satisfiable(alice: Person, wanted: str) -> None:
    answer = download(alice, uploaded(alice, TEXT), HTTP_RANGE=wanted)

    problem(answer, 416, "range_not_satisfiable")
    assert answer["Content-Range"] == "bytes */44"


@pytest.mark.parametrize(
    "wanted",
    ["bytes", "bytes=", "bytes=-", "bytes=b-", "bytes=3-1", "lines=0-1", "bytes=0-1,3-4", "bytes=0x1-2", "bytes=٣-"],
)
def test_a_range_that_means_nothing_is_ignored(alice: Person, wanted: str) -> None:
    answer = download(alice, uploaded(alice, TEXT), HTTP_RANGE=wanted)

    assert (answer.status_code, body_of(answer)) == (200, TEXT)


def test_if_range_gives_a_part_only_of_the_file_that_it_names(alice: Person) -> None:
    media = uploaded(alice, TEXT)
    whole = download(alice, media)

    for same in (whole["ETag"], whole["Last-Modified"]):
        assert download(alice, media, HTTP_RANGE="bytes=0-3", HTTP_IF_RANGE=same).status_code == 206
    for other in ('"another"', f"W/{whole['ETag']}", "Sun, 01 Jan 2023 00:00:00 GMT", ""):
        assert download(alice, media, HTTP_RANGE="bytes=0-3", HTTP_IF_RANGE=other).status_code == 200


def test_who_has_the_file_gets_it_no_second_time(alice: Person) -> None:
    media = uploaded(alice, TEXT)
    etag = download(alice, media)["ETag"]

    for known in (etag, f'"other", {etag}', f"W/{etag}", "*"):
        answer = download(alice, media, HTTP_IF_NONE_MATCH=known)
        assert (answer.status_code, answer.content, answer["ETag"]) == (304, b"", etag)
    assert download(alice, media, HTTP_IF_NONE_MATCH='"other"').status_code == 200
    problem(download(alice, media, HTTP_IF_MATCH='"other"'), 412, "precondition_failed")


def test_head_tells_of_the_file_without_giving_it(alice: Person) -> None:
    media = uploaded(alice, TEXT)

    answer = download(alice, media, "head", HTTP_RANGE="bytes=0-3")

    assert (answer.status_code, answer["Content-Length"], answer.content) == (200, "44", b"")
    assert answer["ETag"] == f'"{media["sha256"]}"'


@pytest.mark.parametrize(
    ("content", "disposition"),
    [
        (picture(), "inline"),
        (b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41", "inline"),
        (TEXT, "attachment"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "attachment"),
        (b"<!doctype html><script>alert(1)</script>", "attachment"),
        (b"%PDF-1.4", "attachment"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(100), "attachment"),
    ],
)
def test_only_raster_images_and_video_are_shown_and_nothing_is_run(
    alice: Person, content: bytes, disposition: str
) -> None:
    answer = download(alice, uploaded(alice, content, "a page.html"))

    assert answer["Content-Disposition"] == f'{disposition}; filename="a page.html"'
    assert answer["X-Content-Type-Options"] == "nosniff"
    assert answer["Content-Security-Policy"] == "default-src 'none'; sandbox"


def test_a_name_of_any_letters_is_told_to_the_browser(alice: Person) -> None:
    answer = download(alice, uploaded(alice, TEXT, "größe €.txt"))

    assert answer["Content-Disposition"] == "attachment; filename*=utf-8''gr%C3%B6%C3%9Fe%20%E2%82%AC.txt"


def test_a_thumbnail_is_small_and_webp(alice: Person) -> None:
    media = uploaded(alice, picture("JPEG", (1600, 800)), "photo.jpg")

    answer = alice.api.get(f"{URL}/{media['id']}/thumbnail")

    assert answer["Content-Type"] == "image/webp"
    thumbnail = Image.open(BytesIO(body_of(answer)))
    assert (thumbnail.format, thumbnail.size) == ("WEBP", (512, 256))


def test_what_the_storage_lost_is_said_to_be_unavailable_until_it_is_sent_again(alice: Person) -> None:
    import shutil

    from django.conf import settings

    media = uploaded(alice, picture())
    shutil.rmtree(settings.MEDIA_ROOT)

    for path in (f"{URL}/{media['id']}/download", media["thumbnail_url"]):
        answer = alice.api.get(path)
        problem(answer, 503, "media_unavailable")
        assert answer["Retry-After"]
    problem_of_head = alice.api.head(f"{URL}/{media['id']}/download")
    assert problem_of_head.status_code == 503
    uploaded(alice, picture())
    assert body_of(download(alice, media)) == picture()
    assert alice.api.get(media["thumbnail_url"]).status_code == 200


def test_a_thumbnail_that_the_storage_lost_comes_back_with_the_file(alice: Person) -> None:
    from django.conf import settings

    media = uploaded(alice, picture())
    [thumbnail] = (settings.MEDIA_ROOT / str(alice.tenant_id)).rglob("*.webp")
    thumbnail.unlink()
    assert body_of(download(alice, media)) == picture()

    uploaded(alice, picture())

    assert alice.api.get(media["thumbnail_url"]).status_code == 200
    age(alice.tenant_id)
    tasks.sweep_media()
    assert body_of(download(alice, media)) == picture()
    assert (rows(alice.tenant_id), stored_bytes(alice.tenant_id)) == ((2, 1, 0), 2)


def test_a_file_that_was_cut_short_in_the_storage_is_not_given(alice: Person) -> None:
    from django.conf import settings

    media = uploaded(alice, TEXT)
    [path] = [one for one in (settings.MEDIA_ROOT / str(alice.tenant_id)).rglob("*") if one.is_file()]
    path.write_bytes(TEXT[:10])

    problem(download(alice, media), 503, "media_unavailable")


# Links


def test_a_link_needs_no_credentials(alice: Person) -> None:
    media = uploaded(alice, picture())
    nobody = JSONClient()

    assert body_of(nobody.get(media["url"])) == picture()
    assert nobody.get(media["thumbnail_url"]).status_code == 200
    assert nobody.get(media["url"], HTTP_RANGE="bytes=0-3").status_code == 206
    assert "X-Quota-Used" not in nobody.get(media["url"])
    assert nobody.get(media["url"], HTTP_X_API_KEY="nonsense").status_code == 200
    assert nobody.get(f"{URL}/{media['id']}/download").status_code == 401
    assert nobody.get(f"{URL}/{media['id']}").status_code == 401


def test_a_forged_link_opens_nothing(alice: Person, charlie: Person) -> None:
    media, other, foreign = uploaded(alice, TEXT), uploaded(alice, b"other"), uploaded(charlie, TEXT)
    token = media["url"].partition("token=")[2]
    another_tenants = foreign["url"].partition("token=")[2]
    longer = token.replace(token.split(".")[2].split("~")[0], "9999999999")

    for forged in ("", "x", token[:-1], token + "x", longer, another_tenants, other["url"].partition("token=")[2]):
        answer = JSONClient().get(f"{URL}/{media['id']}/download?token={forged}")
        assert answer.status_code in {400, 403}, forged
        assert answer["Content-Type"] == "application/problem+json"
    # a bad token is not helped by good credentials
    problem(alice.api.get(f"{URL}/{media['id']}/download?token=x"), 403, "link_refused")
    problem(JSONClient().get(f"{media['url']}&x=1"), 400, "validation_error")


def test_a_link_ends(alice: Person, settings: LazySettings) -> None:
    from datetime import timedelta

    from django.utils import timezone

    from content.media import links
    from content.media.links import LinkRefused

    settings.MEDIA_URL_SECONDS = 1000
    now, media_id = timezone.now(), uuid4()
    token = links.sign(tenant_id=alice.tenant_id, media_id=media_id, now=now)

    def opens(seconds: int) -> Any:
        return links.tenant_of(token=token, media_id=media_id, now=now + timedelta(seconds=seconds))

    assert opens(0) == opens(749) == alice.tenant_id
    with pytest.raises(LinkRefused):
        opens(1001)


def test_a_link_stays_the_same_for_a_while_so_that_caches_help(alice: Person) -> None:
    from datetime import UTC, datetime, timedelta

    from content.media import links

    now, media_id = datetime(2026, 1, 1, 12, 0, 1, tzinfo=UTC), uuid4()
    tokens = {
        links.sign(tenant_id=alice.tenant_id, media_id=media_id, now=now + timedelta(minutes=minutes))
        for minutes in range(15)
    }

    assert len(tokens) == 1


def test_a_link_to_what_was_deleted_leads_nowhere(alice: Person) -> None:
    media = uploaded(alice, TEXT)
    alice.api.delete(f"{URL}/{media['id']}")

    problem(JSONClient().get(media["url"]), 404, "not_found")


# Items


def test_a_file_for_an_item_becomes_its_last_media_in_a_new_version(alice: Person) -> None:
    first = uploaded(alice, TEXT)["id"]
    item = alice.writes(media=[first])

    second = uploaded(alice, picture(), content_id=item["id"])

    now = alice.api.get(f"/api/content/{item['id']}").json()
    assert second["content_id"] == item["id"]
    assert (now["version"], now["media"]) == (2, [first, second["id"]])
    assert {**now, "version": 1, "media": [first], "updated_at": 0, "storage": 0} == {
        **item,
        "updated_at": 0,
        "storage": 0,
    }


def test_an_item_that_is_not_there_takes_no_file(alice: Person, charlie: Person) -> None:
    trashed = alice.writes()["id"]
    alice.api.delete(f"/api/content/{trashed}")
    before = everything(alice.tenant_id)

    for item_id in (str(uuid4()), charlie.writes()["id"], trashed):
        [error] = problem(upload(alice, TEXT, content_id=item_id), 400, "validation_error")["errors"]
        assert (error["field"], error["code"]) == ("content_id", "unknown_content")
    assert everything(alice.tenant_id) == before


def test_an_item_takes_at_most_a_hundred_files(alice: Person) -> None:
    item_id = alice.writes(media=[uploaded(alice, TEXT)["id"]] * 100)["id"]
    before = everything(alice.tenant_id)

    [error] = problem(upload(alice, b"one more", content_id=item_id), 400, "validation_error")["errors"]

    assert error["field"] == "content_id"
    assert everything(alice.tenant_id) == before


def test_an_outsiders_file_cannot_be_used(alice: Person, charlie: Person) -> None:
    media = uploaded(alice, TEXT)["id"]

    answer = charlie.api.post("/api/content", {"title": "t", "type": "post", "media": [media]})

    problem(answer, 400, "validation_error")


# Deleting


def test_deleting_gives_the_bytes_back(alice: Person) -> None:
    media = uploaded(alice, TEXT)["id"]
    assert counted(alice.tenant_id) == (44, 1)

    answer = alice.api.delete(f"{URL}/{media}")

    assert (answer.status_code, answer.content, answer["X-Quota-Used"]) == (204, b"", "0")
    assert counted(alice.tenant_id) == (0, 0)
    problem(alice.api.get(f"{URL}/{media}"), 404, "not_found")
    problem(alice.api.get(f"{URL}/{media}/download"), 404, "not_found")
    problem(alice.api.delete(f"{URL}/{media}"), 404, "not_found")


def test_what_live_content_uses_stays(alice: Person) -> None:
    media = uploaded(alice, TEXT)["id"]
    item = alice.writes(media=[media])["id"]

    assert problem(alice.api.delete(f"{URL}/{media}"), 409, "media_in_use")["content_ids"] == [item]
    assert alice.api.get(f"{URL}/{media}").status_code == 200
    alice.api.patch(f"/api/content/{item}", {"media": []})
    assert alice.api.delete(f"{URL}/{media}").status_code == 204


def test_what_only_trash_uses_may_go(alice: Person) -> None:
    media = uploaded(alice, TEXT)["id"]
    item = alice.writes(media=[media])["id"]
    alice.api.delete(f"/api/content/{item}")

    assert alice.api.delete(f"{URL}/{media}").status_code == 204
    assert alice.api.post(f"/api/content/{item}/restore").status_code == 200


# Counting


def test_equal_files_share_bytes_and_count_each(alice: Person) -> None:
    first, second = uploaded(alice, TEXT, "one.txt"), uploaded(alice, TEXT, "two.txt")

    assert first["id"] != second["id"]
    assert stored_bytes(alice.tenant_id) == 1
    assert rows(alice.tenant_id) == (2, 1, 0)
    assert counted(alice.tenant_id) == (88, 2)
    alice.api.delete(f"{URL}/{first['id']}")
    assert body_of(download(alice, second)) == TEXT
    assert counted(alice.tenant_id) == (44, 1)


def test_tenants_share_nothing(alice: Person, charlie: Person) -> None:
    uploaded(alice, TEXT)
    uploaded(charlie, TEXT)

    assert stored_bytes(alice.tenant_id) == stored_bytes(charlie.tenant_id) == 1


def test_a_file_that_fits_to_the_byte_is_taken_and_one_byte_more_is_not(database: None) -> None:
    exact, tight = people.new_owner(storage_limit=44), people.new_owner(storage_limit=43)

    assert uploaded(exact, TEXT)["size_bytes"] == 44
    refused = problem(upload(tight, TEXT), 403, "storage_quota_exceeded")

    assert refused.keys() >= {"current_usage_bytes", "reserved_bytes", "plan_tier", "upgrade_suggestion", "freeable"}
    assert (refused["requested_bytes"], refused["limit_bytes"]) == (44, 43)
    assert everything(tight.tenant_id) == ((0, 0, 0), 0, [], (0, 0))


def test_what_certainly_does_not_fit_is_refused_before_it_is_read(database: None) -> None:
    tight = people.new_owner(storage_limit=1000)

    answer = send(tight, b"never read", CONTENT_LENGTH="9999999")

    problem(answer, 403, "storage_quota_exceeded")


def test_a_file_that_adds_no_bytes_is_taken_by_a_full_tenant(database: None) -> None:
    full = people.new_owner(storage_limit=0)

    assert upload(full, b"").status_code == 201


# Who may


CALLS = [
    ("get", URL),
    ("get", URL + "/{id}"),
    ("get", URL + "/{id}/download"),
    ("get", URL + "/{id}/thumbnail"),
    ("delete", URL + "/{id}"),
]


@pytest.mark.parametrize(("method", "path"), CALLS[1:])
def test_an_outsider_cannot_tell_a_file_from_none(alice: Person, charlie: Person, method: str, path: str) -> None:
    media = uploaded(alice, picture())["id"]

    theirs = getattr(charlie.api, method)(path.format(id=media), HTTP_X_REQUEST_ID="same")
    none = getattr(charlie.api, method)(path.format(id=uuid4()), HTTP_X_REQUEST_ID="same")

    problem(theirs, 404, "not_found")
    assert theirs.content == none.content
    assert alice.api.get(f"{URL}/{media}").status_code == 200
    assert charlie.api.get(URL).json()["data"] == []


@pytest.mark.parametrize(("method", "path"), [*CALLS, ("post", URL)])
def test_a_stranger_is_asked_for_credentials(alice: Person, method: str, path: str) -> None:
    media = uploaded(alice, TEXT)["id"]

    assert getattr(JSONClient(), method)(path.format(id=media)).status_code == 401


def test_a_viewer_may_read_and_nothing_else(alice: Person) -> None:
    viewer = people.new_colleague(alice, Role.VIEWER)
    media = uploaded(alice, picture())["id"]

    for _, path in CALLS[:-1]:
        assert viewer.api.get(path.format(id=media)).status_code == 200
    problem(viewer.api.delete(f"{URL}/{media}"), 403, "permission_denied")
    problem(upload(viewer, TEXT), 403, "permission_denied")
    assert rows(alice.tenant_id) == (1, 1, 0)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("put", URL, {"GET", "POST"}),
        ("patch", URL + "/{id}", {"GET", "DELETE"}),
        ("post", URL + "/{id}/download", {"GET"}),
        ("delete", URL + "/{id}/thumbnail", {"GET"}),
    ],
)
def test_a_wrong_method_is_named(alice: Person, method: str, path: str, allowed: set[str]) -> None:
    answer = getattr(alice.api, method)(path.format(id=uuid4()))

    assert answer.status_code == 405
    assert allowed <= set(answer["Allow"].split(", "))


def test_a_malformed_id_leads_nowhere(alice: Person) -> None:
    for path in (f"{URL}/5", f"{URL}/5/download", f"{URL}/{uuid4()}/other"):
        problem(alice.api.get(path), 404, "not_found")


# Repeating


def test_a_file_sent_twice_under_one_key_is_stored_once(alice: Person) -> None:
    first = upload(alice, TEXT, "fox.txt", HTTP_IDEMPOTENCY_KEY="once")
    second = upload(alice, TEXT, "fox.txt", HTTP_IDEMPOTENCY_KEY="once")

    assert (first.status_code, second.status_code) == (201, 201)
    assert second.json() == first.json()
    assert (second["Idempotency-Replayed"], second["Location"]) == ("true", first["Location"])
    assert "Idempotency-Replayed" not in first
    assert counted(alice.tenant_id) == (44, 1)
    assert incoming() == []


def test_another_file_under_the_same_key_is_refused(alice: Person) -> None:
    item_id = alice.writes()["id"]
    upload(alice, TEXT, "fox.txt", HTTP_IDEMPOTENCY_KEY="once")
    before = everything(alice.tenant_id)

    for content, name, fields in (
        (b"other", "fox.txt", {}),
        (TEXT, "cat.txt", {}),
        (TEXT, "fox.txt", {"content_id": item_id}),
    ):
        answer = upload(alice, content, name, HTTP_IDEMPOTENCY_KEY="once", **fields)
        problem(answer, 422, "idempotency_mismatch")
    assert everything(alice.tenant_id) == before


def test_a_refused_file_frees_its_key(alice: Person) -> None:
    broken = picture()[:60]
    assert upload(alice, broken, "a", HTTP_IDEMPOTENCY_KEY="again").status_code == 400

    assert upload(alice, TEXT, "a", HTTP_IDEMPOTENCY_KEY="again").status_code == 201


def test_two_tenants_keys_are_two(alice: Person, charlie: Person) -> None:
    for person in (alice, charlie):
        answer = upload(person, TEXT, HTTP_IDEMPOTENCY_KEY="mine")
        assert "Idempotency-Replayed" not in answer


def test_media_deleted_while_its_item_was_in_the_trash_is_in_the_way_of_nothing(alice: Person) -> None:
    item_id = alice.writes()["id"]
    media_id = uploaded(alice, b"a text", content_id=item_id)["id"]
    alice.api.delete(f"/api/content/{item_id}")
    assert alice.api.delete(f"{URL}/{media_id}").status_code == 204
    assert alice.api.post(f"/api/content/{item_id}/restore").status_code == 200

    another = uploaded(alice, b"another text", content_id=item_id)["id"]
    assert alice.api.patch(f"/api/content/{item_id}", {"media": [another]}).status_code == 200
    assert alice.api.delete(f"{URL}/{another}").status_code == 409
