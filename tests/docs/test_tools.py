"""The tools themselves: what they let pass, and what they report."""

import os
from pathlib import Path

import pytest

from engarde.embedded import remembered
from tests.docs import links, pages, shell

PAGE = """# A page: what `it` *does*

[up](#a-page-what-it-does) [twice](#twice-1) [gone](#gone) [none](none.md) [other](other.md#there) [outside](https://example.com)

## Twice
## Twice

`[not a link](nowhere.md)`

```sh
[not](a-link.md)
```
"""
REFUSAL = 'echo \'{"status":\'$((400 + 9))\',"detail":"No."}\''


def test_dead_links_and_anchors_are_found_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text(PAGE)
    (tmp_path / "other.md").write_text("# There\n")
    assert [fault.rpartition(": ")[2] for fault in links.faults(tmp_path / "page.md")] == [
        "no heading makes #gone",
        "there is no none.md",
    ]


def test_a_page_that_no_index_names_is_found(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    found = [tmp_path / "index.md", tmp_path / "named.md", folder / "by-folder.md", tmp_path / "forgotten.md"]
    for page in found:
        page.write_text("")
    found[0].write_text("[one](named.md#here) [all](folder/)")
    [fault] = links.left_out(found[0], found)
    assert "forgotten.md" in fault


@pytest.mark.parametrize(
    ("command", "said", "surprises"),
    [
        ("true", "", []),
        ("false", "", ["exit code 1: false"]),
        ("sh -c 'exit 3' # exit code 3 when nothing runs", "", []),
        (REFUSAL, "", ["an answer 409"]),
        (REFUSAL, "409 is what it says", []),
        ("echo fine # 409", "", ["no answer 409"]),
        ("echo 204 # 204: gone", "", []),
        ("echo 200 # 204; gone", "", ["no answer 204"]),
        ("echo 404 # 404\necho 200 # 200", "", []),
        ("echo 200 # 404\necho 404 # 200", "", ["no answer 200"]),
        ("echo 2044 # 204", "", ["no answer 204"]),
        ("echo fine # 503 when it is away", "", []),
        ("echo $((500 + 3))", "", ["an answer 503"]),
        ("echo 503 # 503", "", []),
        ("echo $((500 + 3))", "503\n", []),
        ("sh -c 'exit 1' # exit code 1\nfalse", "", ["exit code 1: false"]),
        ("sh -c 'exit 52' # curl: (52) Empty reply", "", []),
        ("echo 'sleep(1)'; false", "exit code 1", ["exit code 1: false"]),
        ("fails() { return 3; }\nfails # exit code 3", "", []),
        ("fails() { return 3; } # exit code 3\nfails", "", ["exit code 3: return 3"]),
        ("python3 -c 'raise ValueError'", "", ["exit code 1: python3 -c 'raise ValueError'", "a traceback"]),
        ("inside() { false; echo; }; inside", "", ["exit code 1: false"]),
    ],
)
def test_what_a_page_does_not_say_is_a_surprise(command: str, said: str, surprises: list[str]) -> None:
    block = pages.Block(1, "sh", f"{command}\n", "", said)
    [printed] = shell.run([block], environment=os.environ, port=1, seconds=20)
    assert shell.surprises(block, printed) == surprises


def test_the_status_of_every_call_is_told(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("Text without a newline")
    port = remembered.free_port()
    there = f"http://127.0.0.1:{port}/there"
    calls = f"""
cd {tmp_path}; python3 -m http.server --bind 127.0.0.1 {port} 2> log &
until (echo > /dev/tcp/127.0.0.1/{port}) 2> /dev/null; do sleep 0.1; done
curl -s {there} # 200
NOTHING=$(curl -s {there}/not) # 404: nothing
curl -s {there} -o copy -w '%{{http_code}}\\n' # 201
"""
    block = pages.Block(1, "sh", calls, "")
    [printed] = shell.run([block], environment=os.environ, port=1, seconds=20)
    assert shell.surprises(block, printed) == ["no answer 201"]


def test_blocks_share_a_shell_python_is_run_and_what_stays_is_stopped() -> None:
    text = (
        "```sh\nexport NAME=pia\n```\n```\nprinted\n```\n```python\nimport os\nprint('I am', os.environ['NAME'])\n```\n"
    )
    found = [block for block in pages.blocks(f"{text}```sh\nsleep 300 &\n```\n") if pages.runs(block)]
    assert found[0].said == "printed\n"
    assert shell.run(found, environment=os.environ, port=1, seconds=20) == ["", "I am pia", ""]
