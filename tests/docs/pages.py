"""The pages of the documentation, taken apart: headings, links, fenced blocks."""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from engarde.embedded.paths import PROJECT_ROOT

FENCE = re.compile(r"^(`{3,}|~{3,})(.*)$")
HEADING = re.compile(r"^#{1,6} +(.*?)(?: +#+)?$")
CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
LINK = re.compile(r"\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
DEFINITION = re.compile(r"^ {0,3}\[[^\]]+\]: *<?(\S+?)>?(?: |$)")
MARKUP = re.compile(r"\[([^\]]*)\]\([^)]*\)|[*_`]*`([^`]*)`[*_`]*")


@dataclass(frozen=True)
class Block:
    """A fenced block.

    Attributes:
        line: of its first fence, from 1.
        kind: what stands behind the fence: `sh`, `sh stays`, `python`, or nothing for what is only looked at.
        before: the line of text before it.
        said: what the block right behind it says that this one prints; empty where there is none.
    """

    line: int
    kind: str
    text: str
    before: str
    said: str = ""


@dataclass(frozen=True)
class Link:
    """Where a page leads to."""

    line: int
    target: str


def all_pages() -> list[Path]:
    """Return the pages that people read."""
    root = PROJECT_ROOT
    return [*sorted(root.glob("*.md")), *sorted((root / "docs").rglob("*.md"))]


def name_of(page: Path) -> str:
    """Return a page's path in the checkout."""
    return page.relative_to(PROJECT_ROOT).as_posix() if page.is_relative_to(PROJECT_ROOT) else page.as_posix()


def blocks(text: str) -> list[Block]:
    """Return the fenced blocks of a page."""
    found: list[Block] = []
    before, fence, kind, start = "", "", "", 0
    held: list[str] = []
    ended = -1
    for number, line in enumerate(text.splitlines(), 1):
        match = FENCE.match(line)
        if fence:
            if line.strip() == fence:
                block = Block(start, kind, "\n".join(held) + "\n", before)
                if start == ended + 1 and found and not runs(block):
                    found[-1] = Block(**{**vars(found[-1]), "said": block.text})
                found.append(block)
                fence, ended = "", number
            else:
                held.append(line)
        elif match:
            fence, kind, start, held = match[1], match[2].strip(), number, []
        elif line.strip():
            before = line
    return found


def holding(page: str, text: str) -> str:
    """Return what a page's one block with some text in it holds."""
    [found] = [block.text for block in blocks((PROJECT_ROOT / page).read_text()) if text in block.text]
    return found


def runs(block: Block) -> bool:
    """Tell whether a block is something that a reader runs."""
    return block.kind.split(" ")[0] in {"sh", "python"}


def prose(text: str) -> list[tuple[int, str]]:
    """Return the lines outside fenced blocks, numbered from 1."""
    lines, fence = [], ""
    for number, line in enumerate(text.splitlines(), 1):
        match = FENCE.match(line)
        if fence:
            fence = "" if line.strip() == fence else fence
        elif match:
            fence = match[1]
        else:
            lines.append((number, line))
    return lines


def links(text: str) -> list[Link]:
    """Return the links of a page, pictures too."""
    found = []
    for number, line in prose(text):
        plain = CODE.sub("", line)
        targets = LINK.findall(plain) + DEFINITION.findall(plain)
        found += [Link(number, target) for target in targets]
    return found


def anchors(text: str) -> set[str]:
    """Return what a link may name behind `#`, as GitHub makes it from the headings."""
    seen: Counter[str] = Counter()
    found = set()
    for _, line in prose(text):
        if match := HEADING.match(line):
            name = _slug(match[1])
            found.add(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
    return found


def _slug(heading: str) -> str:
    plain = MARKUP.sub(lambda match: match[1] or match[2] or "", heading)
    return re.sub(r"[^\w\- ]", "", plain.lower()).replace(" ", "-")
