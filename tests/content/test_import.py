"""`import_content`: folders of real documents become content, and a second run changes nothing."""

import itertools
import json
import os
from io import StringIO
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command

from content import importer
from tests.people import Person

HTML = "<html><head><title>A &lt;page&gt;</title></head><body><h1>Other</h1><p>Text</p></body></html>"


def import_folder(person: Person, folder: Path, *options: str) -> tuple[bool, dict[str, Any]]:
    """Return whether the command succeeded, and its report."""
    out = StringIO()
    try:
        call_command("import_content", str(folder), "--tenant", str(person.tenant_id), "--json", *options, stdout=out)
        passed = True
    except SystemExit as stop:
        passed = stop.code == 0
    return passed, json.loads(out.getvalue())


def items(person: Person) -> dict[str, dict[str, Any]]:
    page = person.api.get("/api/content", {"pageSize": 100}).json()["data"]
    return {item["metadata"]["imported_from"]: item for item in page}


def body(person: Person, name: str) -> str:
    return str(person.api.get(f"/api/content/{items(person)[name]['id']}").json()["body"])


def test_front_matter_gives_title_tags_status_and_type_and_the_body_stays_to_the_letter(
    alice: Person, tmp_path: Path
) -> None:
    text = "\n# Heading\r\n\r\n  Indented, ünicode 🎉, trailing space \n\n"
    (tmp_path / "a.md").write_bytes(
        f"---\ntitle: From the front matter\ntags: [one, two]\nstatus: published\ntype: post\n---\n{text}".encode()
    )

    passed, report = import_folder(alice, tmp_path)

    assert passed
    assert (report["total"], report["created"], report["bytes"]) == (1, 1, len(text.encode()))
    item = items(alice)["a.md"]
    assert (item["title"], item["tags"]) == ("From the front matter", ["one", "two"])
    assert (item["status"], item["type"]) == ("published", "post")
    assert body(alice, "a.md") == text


@pytest.mark.parametrize(
    ("name", "text", "title"),
    [
        ("plain.txt", "Just text\n", "plain"),
        ("heading.md", "intro\n\n# The *heading* #\n", "The *heading*"),
        ("page.html", HTML, "A &lt;page&gt;"),
        ("rule.md", "---\n\nA rule, then text.\n", "rule"),
        ("list.md", "---\n- a\n- b\n---\ntext\n", "list"),
        ("empty.md", "", "empty"),
        ("long.md", "# " + "x" * 500, "x" * 300),
    ],
)
def test_without_front_matter_the_title_is_found_and_the_whole_file_is_the_body(
    alice: Person, tmp_path: Path, name: str, text: str, title: str
) -> None:
    (tmp_path / name).write_text(text)

    assert import_folder(alice, tmp_path)[0]

    assert items(alice)[name]["title"] == title
    assert body(alice, name) == text


def test_a_second_run_changes_only_what_changed(alice: Person, tmp_path: Path) -> None:
    for name in ("same.md", "changed.md"):
        (tmp_path / name).write_text(f"text of {name}")
    import_folder(alice, tmp_path)
    (tmp_path / "changed.md").write_text("other text")
    (tmp_path / "new.md").write_text("new")

    _, report = import_folder(alice, tmp_path)

    assert {name: report[name] for name in ("created", "updated", "unchanged", "failed")} == {
        "created": 1,
        "updated": 1,
        "unchanged": 1,
        "failed": 0,
    }
    assert {name: item["version"] for name, item in items(alice).items()} == {
        "same.md": 1,
        "changed.md": 2,
        "new.md": 1,
    }


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"\xff\xfe broken", "not UTF-8"),
        (b"text\0with nul", "NUL"),
        (b"---\ntitle: [unclosed\n---\nx", "not valid YAML"),
        (b"---\nstatus: unheard-of\n---\nx", "status"),
        (b"---\nstatus: scheduled\n---\nx", "scheduled"),
        (b"x" * (1024**2 + 1), "1048576"),
        (b"x" * (5 * 1024**2), "more than a body may have"),
        (b'---\ntitle: "a\\0b"\n---\nx', "NUL"),
        (b'---\ntags: ["\\uD800"]\n---\nx', "surrogates"),
        (b"---\ntitle: 0x" + b"f" * 5000 + b"\n---\nx", "huge number"),
        (b"---\na: &a {x: 1}\nb: {<<: *a}\n---\nx", "not valid YAML"),
        (b"---\ntags: [" + b"a, " * 101 + b"]\n---\nx", "at most 100"),
    ],
)
def test_a_bad_file_is_reported_and_does_not_stop_the_rest(
    alice: Person, tmp_path: Path, content: bytes, said: str
) -> None:
    (tmp_path / "bad.md").write_bytes(content)
    (tmp_path / "good.md").write_text("good")

    passed, report = import_folder(alice, tmp_path)

    assert not passed
    assert (report["created"], report["failed"]) == (1, 1)
    [error] = report["errors"]
    assert error["id"] == "bad.md"
    assert said in error["message"]
    assert list(items(alice)) == ["good.md"]


def test_a_full_quota_is_an_error_of_the_file(alice: Person, tmp_path: Path) -> None:
    from engarde.common.scopes import system_scope
    from quotas.models import QuotaUsage

    with system_scope("a test lowers a limit"):
        QuotaUsage.objects.filter(tenant_id=alice.tenant_id).update(
            storage_limit_override=10, override_reason="A test."
        )
    (tmp_path / "a.md").write_text("12345")
    (tmp_path / "b.md").write_text("1234567")
    (tmp_path / "c.md").write_text("12345")

    _, report = import_folder(alice, tmp_path)

    assert (report["created"], [error["code"] for error in report["errors"]]) == (2, ["storage_quota_exceeded"])


def test_hidden_files_links_and_other_kinds_are_left_out(alice: Person, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "kept.md").write_text("kept")
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "config.txt").write_text("hidden")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / "link.md").symlink_to("/etc/hostname")

    import_folder(alice, tmp_path)

    assert list(items(alice)) == ["sub/kept.md"]


def test_a_dry_run_checks_everything_and_stores_nothing(alice: Person, tmp_path: Path) -> None:
    (tmp_path / "good.md").write_text("good")
    (tmp_path / "bad.md").write_bytes(b"\xff")

    passed, report = import_folder(alice, tmp_path, "--dry-run")

    assert not passed
    assert (report["dry_run"], report["total"], report["created"], report["failed"]) == (True, 2, 1, 1)
    assert items(alice) == {}

    import_folder(alice, tmp_path)
    _, report = import_folder(alice, tmp_path, "--dry-run")
    assert (report["unchanged"], report["created"], report["updated"]) == (1, 0, 0)


def test_one_file_a_limit_and_a_report_file(alice: Person, tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.md").write_text(f"text {number}")
    written = tmp_path / "report.json"

    _, report = import_folder(alice, tmp_path, "--limit", "2", "--report", str(written))
    assert report["total"] == 2
    assert json.loads(written.read_text()) == report
    _, report = import_folder(alice, tmp_path / "2.md")
    assert report["created"] == 1


def test_what_was_imported_and_trashed_stays_in_the_trash(alice: Person, tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("text")
    import_folder(alice, tmp_path)
    alice.api.delete(f"/api/content/{items(alice)['a.md']['id']}")

    passed, report = import_folder(alice, tmp_path)

    assert passed
    assert (report["skipped"], report["created"], items(alice)) == (1, 0, {})


def test_nested_yaml_is_refused_and_never_written_out(alice: Person, tmp_path: Path) -> None:
    bomb = "a: &a [x]\n" + "".join(
        f"{n}: &{n} [{', '.join([f'*{p}'] * 9)}]\n" for p, n in itertools.pairwise("abcdefghi")
    )
    (tmp_path / "bomb.md").write_text(f"---\n{bomb}tags: *i\ntitle: *i\n---\nx")

    _, report = import_folder(alice, tmp_path)

    assert report["failed"] == 1


def test_a_name_that_is_not_utf_8_is_written_out(alice: Person, tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"caf\xe9.md")).write_text("coffee")

    assert import_folder(alice, tmp_path)[0]

    assert list(items(alice)) == ["caf\\udce9.md"]


def test_a_file_that_nobody_foresaw_does_not_stop_the_rest(
    alice: Person, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.md", "b.md"):
        (tmp_path / name).write_text(name)
    read = importer.read_fields

    def read_or_break(path: Path, name: str) -> dict[str, Any]:
        if name == "a.md":
            raise ZeroDivisionError("nobody foresaw this")
        return read(path, name)

    monkeypatch.setattr(importer, "read_fields", read_or_break)

    passed, report = import_folder(alice, tmp_path)

    assert not passed
    assert (report["created"], [error["code"] for error in report["errors"]]) == (1, ["unexpected"])


def test_a_missing_folder_or_tenant_is_an_error(alice: Person, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="nothing at"):
        import_folder(alice, tmp_path / "nowhere")
    with pytest.raises(CommandError, match="no tenant"):
        call_command("import_content", str(tmp_path), "--tenant", str(uuid4()))
