"""Cursors come back as they went out, and whatever else comes is refused as input, never an error of ours."""

from base64 import urlsafe_b64encode
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engarde.common import cursors
from engarde.common.problems import Invalid

DIGEST = cursors.digest({"sort": "title"})
KINDS: dict[str, list[Any]] = {"text": [str, UUID], "time": [datetime, UUID], "number": [int]}


def forged(value: Any) -> str:
    return urlsafe_b64encode(orjson.dumps(value)).rstrip(b"=").decode()


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=300)
times = st.datetimes(datetime(1, 1, 2), datetime(9999, 12, 30), timezones=st.just(UTC))  # noqa: DTZ001


@given(title=text, item_id=st.uuids())
def test_texts_come_back(title: str, item_id: UUID) -> None:
    cursor = cursors.encode([title, item_id], DIGEST)

    assert cursor.isascii()
    assert cursor.replace("-", "").replace("_", "").isalnum()
    assert len(cursor) <= cursors.LONGEST
    assert cursors.decode(cursor, DIGEST, [str, UUID]) == [title, item_id]


@given(when=times, item_id=st.uuids())
def test_times_come_back_to_the_microsecond(when: datetime, item_id: UUID) -> None:
    for value in (when, when.isoformat()):
        assert cursors.decode(cursors.encode([value, item_id], DIGEST), DIGEST, [datetime, UUID]) == [when, item_id]


@given(number=st.integers(0, 2**63 - 1))
def test_numbers_come_back(number: int) -> None:
    assert cursors.decode(cursors.encode([number], DIGEST), DIGEST, [int]) == [number]


@pytest.mark.parametrize("title", ["\x01" * 300, "\\" * 300, "\N{GRINNING FACE}" * 300, '"' * 300])
def test_the_longest_titles_fit(title: str) -> None:
    item_id = uuid4()

    assert cursors.decode(cursors.encode([title, item_id], DIGEST), DIGEST, [str, UUID]) == [title, item_id]


def test_a_cursor_of_other_filters_is_refused() -> None:
    cursor = cursors.encode(["a", uuid4()], DIGEST)

    for other in ({"sort": "-title"}, {"sort": "title", "status": "draft"}, {}):
        with pytest.raises(Invalid):
            cursors.decode(cursor, cursors.digest(other), [str, UUID])


def test_the_order_of_filters_does_not_matter() -> None:
    assert cursors.digest({"a": 1, "b": uuid4}) == cursors.digest({"b": uuid4, "a": 1})


ITEM = str(uuid4())
NOTHING: tuple[Any, ...] = (None, 1, "text", {}, [], {DIGEST: 1}, [DIGEST], [DIGEST, 1, 2, 3])
NO_ID: tuple[Any, ...] = (None, 5, "x", [], {}, True, "\0")
NO_TEXT: tuple[Any, ...] = (None, 5, "a\0b", [], {}, True)
NO_TIME: tuple[Any, ...] = (None, 5, "", "x", [], {}, "2026-01-01", "2026-01-01T00:00:00", "2026-13-01",
                            "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00")  # fmt: skip
NO_NUMBER: tuple[Any, ...] = (None, "x", "5", [], {}, 1.5, True, -1, 2**63, 1e300)
NO_DIGEST: tuple[Any, ...] = (None, 5, {}, "other")
FORGED: list[tuple[str, Any]] = [
    *[(kind, value) for kind in KINDS for value in NOTHING],
    *[("text", [DIGEST, "a", bad]) for bad in NO_ID],
    *[("text", [DIGEST, bad, ITEM]) for bad in NO_TEXT],
    *[("time", [DIGEST, bad, ITEM]) for bad in NO_TIME],
    *[("number", [DIGEST, bad]) for bad in NO_NUMBER],
    *[(kind, [bad, 1, ITEM]) for kind in KINDS for bad in NO_DIGEST],
]


@pytest.mark.parametrize(("kind", "value"), FORGED)
def test_a_forged_cursor_is_refused(kind: str, value: Any) -> None:
    with pytest.raises(Invalid):
        cursors.decode(forged(value), DIGEST, KINDS[kind])


GOOD = cursors.encode(["a title", ITEM], DIGEST)


@pytest.mark.parametrize(
    "cursor",
    ["", "!", "====", "é", "٣٣٣٣", "%00", "\0", "a", "A" * 5000, GOOD + "!", GOOD + "=", " " + GOOD, GOOD[:-1], GOOD[1:],
     GOOD + GOOD, GOOD.upper(), forged([DIGEST] * 10_000), urlsafe_b64encode(b"1e999").decode()],
)  # fmt: skip
def test_a_mutilated_cursor_is_refused(cursor: str) -> None:
    for kinds in KINDS.values():
        with pytest.raises(Invalid):
            cursors.decode(cursor, DIGEST, kinds)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | text | st.just(DIGEST),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=3),
    max_leaves=6,
)


@given(
    value=json_values | st.lists(json_values, max_size=4).map(lambda rest: [DIGEST, *rest]),
    kind=st.sampled_from(sorted(KINDS)),
)
def test_whatever_comes_is_a_cursor_or_refused(value: Any, kind: str) -> None:
    try:
        found = cursors.decode(forged(value), DIGEST, KINDS[kind])
    except Invalid:
        return
    assert all(isinstance(one, wanted) for one, wanted in zip(found, KINDS[kind], strict=True))


@given(cursor=st.text(max_size=50))
def test_whatever_text_comes_is_refused(cursor: str) -> None:
    with pytest.raises(Invalid):
        cursors.decode(cursor, DIGEST, KINDS["text"])
