"""Folders of Markdown, text and HTML files to content, through the same operations as the API.

A file's id follows from the tenant and its path in the folder, so a second run finds what the first one made: it changes
what changed, leaves the rest alone, and nothing is there twice.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid5

import structlog
import yaml
from django.conf import settings
from django.db import DatabaseError

from content import operations, queries
from content.models import ContentType, Status
from engarde.common.problems import NotFound, Problem, explain

log = structlog.get_logger(__name__)

SUFFIXES = frozenset({".md", ".markdown", ".txt", ".text", ".rst", ".html", ".htm"})
MAX_NUMBER = 10**18
CONTAINERS = (dict, list, set, tuple)
MAX_TITLE = 300
TITLE_WITHIN = 16 * 1024  # characters; a title stands near the beginning, and searching on could take for ever
MAX_LIST = 100
HTML_TITLE = re.compile(r"<(?:title|h1)\b[^>]*>(.*?)</(?:title|h1)\s*>", re.IGNORECASE | re.DOTALL)
MARKUP = re.compile(r"<[^<>]*>")
# Libraries for front matter strip the blank lines around a body; ours comes back as it was sent.
FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*\r?(?:\n|\Z)", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#\s+(\S.*?)\s*#*$", re.MULTILINE)


class PlainLoader(yaml.SafeLoader):
    """YAML without merge keys: nested ones take time without bound."""

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """Merge nothing; a merge key is then refused as an unknown one."""


class Unreadable(Problem):
    """A file that cannot become content."""

    code, title = "unreadable_file", "Unreadable file"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file.

    Attributes:
        result: "created", "updated", "unchanged", "failed", or "skipped": the item is in the trash, or another import
            made it at the same moment.
        size_bytes: of the body, 0 when it failed.
    """

    path: str
    result: str
    content_id: UUID | None = None
    size_bytes: int = 0
    code: str = ""
    message: str = ""


def find_files(root: Path) -> list[Path]:
    """Return the importable files of a folder (or the one file), in order of their names; links are not followed."""
    if root.is_file():
        return [root]
    return sorted(_walk(root))


def _walk(root: Path) -> Iterator[Path]:
    for path in root.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(root).parts)
        if not hidden and path.suffix.lower() in SUFFIXES and not path.is_symlink() and path.is_file():
            yield path


def import_file(*, tenant_id: UUID, root: Path, path: Path, now: datetime) -> Outcome:
    """Create or update the content of one file; an error of this file is an outcome, never raised."""
    name = _name(root, path)
    content_id = _id(tenant_id, name)
    try:
        fields = read_fields(path, name)
        result = _store(tenant_id, content_id, fields, now)
    except Problem as problem:
        return Outcome(name, "failed", code=problem.code, message=explain(problem))
    except DatabaseError:
        raise
    except Exception as error:
        log.exception("a file could not be imported", file=name)
        return Outcome(name, "failed", code="unexpected", message=f"{type(error).__name__}: {error}"[:500])
    return Outcome(name, result, content_id, len(fields["body"].encode()))


def check_file(*, tenant_id: UUID, root: Path, path: Path) -> Outcome:
    """Say what an import would do with one file, but for the quota, and store nothing."""
    name = _name(root, path)
    content_id = _id(tenant_id, name)
    try:
        fields = read_fields(path, name)
        operations.check_fields({**operations.EMPTY_FIELDS, **fields})
        result = _foresee(tenant_id, content_id, fields)
    except Problem as problem:
        return Outcome(name, "failed", code=problem.code, message=explain(problem))
    return Outcome(name, result, content_id, len(fields["body"].encode()))


def _foresee(tenant_id: UUID, content_id: UUID, fields: dict[str, Any]) -> str:
    try:
        item = queries.get_item(tenant_id=tenant_id, content_id=content_id)
    except NotFound:
        return "created"
    return "unchanged" if item.fields == {**item.fields, **fields} else "updated"


def _id(tenant_id: UUID, name: str) -> UUID:
    return uuid5(NAMESPACE_URL, f"engarde:import:{tenant_id}:{name}")


def _name(root: Path, path: Path) -> str:
    """Return a file's path in the folder; bytes of a name that are not UTF-8 are written out."""
    name = path.name if root.is_file() else path.relative_to(root).as_posix()
    return name.encode("utf-8", "backslashreplace").decode()


def _store(tenant_id: UUID, content_id: UUID, fields: dict[str, Any], now: datetime) -> str:
    try:
        before = queries.get_item(tenant_id=tenant_id, content_id=content_id)
    except NotFound:
        return _create(tenant_id, content_id, fields, now)
    written = operations.update_content(
        tenant_id=tenant_id, author_id=None, content_id=content_id, changes=fields, now=now
    )
    return "unchanged" if written.item.version == before.version else "updated"


def _create(tenant_id: UUID, content_id: UUID, fields: dict[str, Any], now: datetime) -> str:
    try:
        operations.create_content(tenant_id=tenant_id, author_id=None, fields=fields, now=now, content_id=content_id)
    except operations.ContentExists:
        return "skipped"
    return "created"


def read_fields(path: Path, name: str) -> dict[str, Any]:
    """Return the content fields of a file: YAML front matter gives title, tags, status and type, the rest is the body.

    Raises:
        Unreadable: too large, not UTF-8, holding NUL bytes, or with broken front matter.
    """
    head, body = _split(_read(path))
    fields = {
        "title": _title(head, body, name),
        "body": body,
        "type": _choice(head, "type", ContentType, ContentType.ARTICLE),
        "status": _choice(head, "status", Status, Status.DRAFT),
        "tags": _texts(head, "tags"),
        "hashtags": _texts(head, "hashtags"),
        "platforms": _texts(head, "platforms"),
        "metadata": {"imported_from": name},
    }
    _require_clean(fields)
    return fields


def _require_clean(fields: dict[str, Any]) -> None:
    for name, value in fields.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and ("\0" in text or any("\ud800" <= character <= "\udfff" for character in text)):
                raise Unreadable(f"{name}: it holds characters that no text can have (NUL or lone surrogates).")


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > 4 * settings.CONTENT_MAX_BODY_BYTES:
            raise Unreadable(f"The file has {path.stat().st_size} bytes, which is more than a body may have.")
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise Unreadable(f"The file cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise Unreadable(f"The file is not UTF-8: {error.reason} at byte {error.start}.") from error
    if "\0" in text:
        raise Unreadable("The file holds NUL bytes, so it is not text.")
    return text


def _split(text: str) -> tuple[dict[str, Any], str]:
    """Return the front matter and the body, which is kept to the letter; a rule of dashes alone is no front matter."""
    found = FRONT_MATTER.match(text)
    if not found:
        return {}, text
    try:
        head = yaml.load(found.group(1), PlainLoader)  # noqa: S506 -- a safe loader, and plainer than that
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise Unreadable(f"The front matter is not valid YAML: {error}") from error
    return (head, text[found.end() :]) if isinstance(head, dict) else ({}, text)


def _title(head: dict[str, Any], body: str, name: str) -> str:
    path = PurePosixPath(name)
    body = body[:TITLE_WITHIN]
    found = HTML_TITLE.search(body) if path.suffix.lower().startswith(".htm") else HEADING.search(body)
    title = str(_scalar(head, "title") or (found and MARKUP.sub("", found.group(1))) or path.stem)
    return " ".join(title.split())[:MAX_TITLE] or path.name


def _choice(head: dict[str, Any], name: str, choices: Any, default: str) -> str:
    value = str(_scalar(head, name) or default).lower()
    if value not in choices.values:
        raise Unreadable(f"{name}: {value!r} is not one of {', '.join(choices.values)}.")
    if value == Status.SCHEDULED:
        raise Unreadable("status: a scheduled item needs a time, which front matter does not give.")
    return value


def _scalar(head: dict[str, Any], name: str) -> Any:
    """Return a value that is no list or mapping: writing out nested YAML aliases could take for ever."""
    value = head.get(name)
    if isinstance(value, CONTAINERS) or (isinstance(value, int) and abs(value) > MAX_NUMBER):
        raise Unreadable(f"{name}: one short value, not a list, mapping or huge number.")
    return value


def _texts(head: dict[str, Any], name: str) -> list[str]:
    value = head.get(name) or []
    listed = value if isinstance(value, list) else str(_scalar(head, name)).split(",")
    texts = [str(_scalar({name: text}, name)) for text in listed]
    cleaned = [text.strip() for text in texts if text.strip()]
    if len(cleaned) > MAX_LIST or any(len(text) > MAX_LIST for text in cleaned):
        raise Unreadable(f"{name}: at most {MAX_LIST} entries of at most {MAX_LIST} characters.")
    return cleaned
