"""What differs between two versions: fields with both values, and the body as a unified diff."""

from collections.abc import Iterator, Mapping
from io import StringIO
from typing import Any

from rapidfuzz.distance import LCSseq

MAX_BYTES = 1024**2
MAX_LINES = 10_000
CONTEXT_LINES = 3
UNNAMED = "\\ No newline at end of file\n"

Opcode = tuple[str, int, int, int, int]


def changed_fields(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the names of the fields that differ, sorted."""
    return sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return {"field", "before", "after"} for each field but the body that differs."""
    names = [name for name in changed_fields(before, after) if name != "body"]
    return [{"field": name, "before": before.get(name), "after": after.get(name)} for name in names]


def body_diff(before: str, after: str, names: tuple[str, str]) -> str | None:
    """Return the unified diff of two bodies, empty for equal ones; None where one is over 1 MiB or 10,000 lines, equal or not.

    The longest common subsequence comes from a bit-parallel algorithm: the standard library's takes minutes for hostile
    bodies of that size.
    """
    old, new = _lines(before), _lines(after)
    if max(len(old), len(new)) > MAX_LINES or max(len(before.encode()), len(after.encode())) > MAX_BYTES:
        return None
    if before == after:
        return ""
    hunks = "".join(line for group in _groups(_opcodes(old, new)) for line in _hunk(group, old, new))
    return f"--- {names[0]}\n+++ {names[1]}\n{hunks}"


def _lines(body: str) -> list[str]:
    """Return a body's lines with their ends; only a line feed ends one, as for `patch`."""
    return list(StringIO(body, newline="\n"))


def _opcodes(old: list[str], new: list[str]) -> list[Opcode]:
    """Return runs of equal lines and, between them, one change each, whose removals then come before its additions."""
    merged: list[Opcode] = []
    for code in LCSseq.opcodes(old, new):
        tag = "equal" if code.tag == "equal" else "replace"
        if merged and merged[-1][0] == tag == "replace":
            merged[-1] = (tag, merged[-1][1], code.src_end, merged[-1][3], code.dest_end)
        else:
            merged.append((tag, code.src_start, code.src_end, code.dest_start, code.dest_end))
    return merged


def _groups(opcodes: list[Opcode]) -> Iterator[list[Opcode]]:
    """Yield runs of changes with their context; far apart ones in runs of their own."""
    group: list[Opcode] = []
    for number, (tag, i1, i2, j1, j2) in enumerate(opcodes):
        if tag != "equal":
            group.append((tag, i1, i2, j1, j2))
            continue
        is_first, is_last = number == 0, number == len(opcodes) - 1
        head = 0 if is_first else min(CONTEXT_LINES, i2 - i1)
        tail = 0 if is_last else min(CONTEXT_LINES, i2 - i1)
        if head + tail >= i2 - i1 and not is_first and not is_last:
            group.append((tag, i1, i2, j1, j2))
            continue
        if not is_first:
            yield [*group, (tag, i1, i1 + head, j1, j1 + head)]
        group = [(tag, i2 - tail, i2, j2 - tail, j2)]
    if any(tag != "equal" for tag, *_ in group):
        yield group


def _hunk(group: list[Opcode], old: list[str], new: list[str]) -> Iterator[str]:
    first, last = group[0], group[-1]
    yield f"@@ -{_range(first[1], last[2])} +{_range(first[3], last[4])} @@\n"
    for tag, i1, i2, j1, j2 in group:
        if tag == "equal":
            yield from (_line(" ", line) for line in old[i1:i2])
            continue
        yield from (_line("-", line) for line in old[i1:i2])
        yield from (_line("+", line) for line in new[j1:j2])


def _range(start: int, stop: int) -> str:
    """Return a hunk's range as GNU diff writes it: an empty one stands after the line before it."""
    length = stop - start
    return f"{start + 1}" if length == 1 else f"{start + 1 if length else start},{length}"


def _line(sign: str, line: str) -> str:
    return f"{sign}{line}" if line.endswith("\n") else f"{sign}{line}\n{UNNAMED}"
