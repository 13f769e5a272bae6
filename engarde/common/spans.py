"""Spans of time for people."""


def span(seconds: float) -> str:
    """Return seconds for people, in the largest unit that has at least one: `0.4 s`, `12 s`, `3.5 min`, `2 h`, `9 days`."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= size:
            number = _short(seconds / size)
            return "1 day" if (number, unit) == ("1", "days") else f"{number} {unit}"
    return f"{_short(seconds)} s"


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0") if number < 10 else f"{number:.0f}"
