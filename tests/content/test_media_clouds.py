"""Media storages outside this machine do what the folder does: what is saved is found again, whole and in part."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.files.storage import storages as django_storages
from moto import mock_aws

from content.media import storages
from content.media.storages import MediaUnavailable
from engarde import env
from engarde import settings as platform
from tests.content.media_files import URL, body_of, picture, rows, upload, uploaded
from tests.people import JSONClient, Person

BLOCK = bytes(range(256)) * 4096
LARGE = 20  # blocks of 1 MiB: more than one part of a multipart upload


def options(kind: str, **more: Any) -> dict[str, Any]:
    """Return the settings of a storage as the platform makes them, for a bucket."""
    made = platform.MEDIA_STORAGES[kind]
    return {
        "media": {**made, "OPTIONS": {**made["OPTIONS"], "bucket_name": "media", "location": "some/prefix", **more}}
    }


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """An S3 that moto plays inside this process, behind the real client."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws():
        import boto3

        boto3.client("s3", region_name="us-east-1").create_bucket(Bucket="media")
        yield options("s3", region_name="us-east-1")


@pytest.fixture
def gcs(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """An emulator of Google Cloud Storage, over HTTP."""
    from gcp_storage_emulator.server import create_server
    from google.auth.credentials import AnonymousCredentials

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{port}")
    server = create_server("127.0.0.1", port, in_memory=True, default_bucket="media")
    server.start()
    try:
        yield options("gcs", project_id="test", credentials=AnonymousCredentials())
    finally:
        server.stop()


@pytest.fixture(params=["s3", "gcs", "file"])
def storage(request: Any, settings: Any, tmp_path: Path) -> str:
    """Each of the storages in turn, as the one that is used."""
    if request.param == "file":
        made = {"media": {**platform.MEDIA_STORAGES["file"], "OPTIONS": {"location": tmp_path / "media"}}}
    else:
        made = request.getfixturevalue(request.param)
    settings.STORAGES = {**settings.STORAGES, **made}
    assert type(django_storages["media"]).__module__.startswith("content.media.")
    return str(request.param)


pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def saved(tmp_path: Path, content: bytes) -> str:
    path = tmp_path / "coming-in"
    path.write_bytes(content)
    storages.save_file(key="a/b/c", path=path)
    return "a/b/c"


def part(key: str, size: int, start: int, length: int) -> bytes:
    opened = storages.open_part(key=key, size=size, start=start, length=length)
    try:
        return b"".join(opened)
    finally:
        opened.close()


def test_what_is_saved_is_given_back_whole_and_in_part(storage: str, tmp_path: Path) -> None:
    content = BLOCK * LARGE
    key, size = saved(tmp_path, content), len(content)

    assert storages.size_of(key=key) == size
    assert part(key, size, 0, size) == content
    assert part(key, size, 1000, 5000) == content[1000:6000]
    assert part(key, size, size - 10, 10) == content[-10:]


def test_what_is_not_there_is_unavailable(storage: str, tmp_path: Path) -> None:
    with pytest.raises(MediaUnavailable):
        part("no/such/key", 1, 0, 1)
    assert not storages.has(key="no/such/key", size=1)


def test_a_file_of_another_size_is_unavailable(storage: str, tmp_path: Path) -> None:
    key = saved(tmp_path, b"0123456789")

    with pytest.raises(MediaUnavailable):
        part(key, 11, 3, 5)
    assert not storages.has(key=key, size=11)


def test_what_is_deleted_is_gone_and_may_be_deleted_again(storage: str, tmp_path: Path) -> None:
    key = saved(tmp_path, b"0123456789")

    for _ in range(2):
        storages.delete(key=key)

    assert not storages.has(key=key, size=10)


def test_an_empty_file_is_kept(storage: str, tmp_path: Path) -> None:
    key = saved(tmp_path, b"")

    assert part(key, 0, 0, 0) == b""


def test_media_files_live_there(storage: str, alice: Person) -> None:
    media = uploaded(alice, picture("PNG", (600, 400)))

    content = picture("PNG", (600, 400))
    assert body_of(JSONClient().get(media["url"])) == content
    assert body_of(JSONClient().get(media["url"], HTTP_RANGE="bytes=8-15")) == content[8:16]
    assert JSONClient().head(media["url"])["Content-Length"] == str(len(content))
    assert body_of(JSONClient().get(media["thumbnail_url"]))[:4] == b"RIFF"
    uploaded(alice, content)
    assert rows(alice.tenant_id) == (2, 1, 0)


def test_a_storage_that_is_away_refuses_files_and_loses_none(
    alice: Person, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    media = uploaded(alice, b"before")
    away = options("s3", region_name="us-east-1", endpoint_url="http://127.0.0.1:9")
    settings.STORAGES = {**settings.STORAGES, **away}

    answers = [upload(alice, b"meanwhile"), alice.api.get(f"{URL}/{media['id']}/download")]

    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (503, "media_unavailable")
    assert alice.api.get(URL).json()["pagination"]["total"] == 1


def test_a_missing_client_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env, "find_spec", lambda _module: None)

    env.require_client("file")
    with pytest.raises(ImproperlyConfigured, match="MEDIA_STORAGE=s3 needs boto3: pip install boto3"):
        env.require_client("s3")
    with pytest.raises(ImproperlyConfigured, match="pip install google-cloud-storage"):
        env.require_client("gcs")
