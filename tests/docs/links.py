"""`python -m tests.docs.links`: links inside the documentation that lead nowhere, and pages that the index leaves out."""

import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from engarde.embedded.paths import PROJECT_ROOT
from tests.docs import pages

INDEX = PROJECT_ROOT / "docs" / "README.md"
ELSEWHERE = ("http:", "https:", "mailto:")


def faults(page: Path) -> Iterator[str]:
    """Yield the dead links of a page, as `path:line: what is wrong`."""
    text = page.read_text()
    for link in pages.links(text):
        if link.target.startswith(ELSEWHERE):
            continue
        path, _, anchor = unquote(link.target).partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists():
            yield f"{pages.name_of(page)}:{link.line}: there is no {link.target}"
        elif anchor and target.suffix == ".md" and anchor not in pages.anchors(target.read_text()):
            yield f"{pages.name_of(page)}:{link.line}: no heading makes {link.target}"


def left_out(index: Path, found: list[Path]) -> Iterator[str]:
    """Yield the pages that an index names neither themselves nor by their folder."""
    targets = {(index.parent / link.target.partition("#")[0]).resolve() for link in pages.links(index.read_text())}
    for page in found:
        if page != index and not targets & {page, page.parent}:
            yield f"{pages.name_of(index)}: {pages.name_of(page)} is not in this index"


def main() -> int:
    """Print what is wrong and return 1, or 0."""
    found = pages.all_pages()
    wrong = [fault for page in found for fault in faults(page)] + list(left_out(INDEX, found))
    print(*wrong, sep="\n", end="\n" if wrong else "", file=sys.stderr)  # noqa: T201 -- a program for the shell
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
