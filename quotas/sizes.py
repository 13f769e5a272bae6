"""Bytes for people."""

import re
from decimal import Decimal

UNITS = ("bytes", "KB", "MB", "GB", "TB", "PB")


def readable(size: int) -> str:
    """Return a number of bytes with a unit of 1024 steps and few digits: `1 byte`, `12.3 MB`, `1 GB`."""
    if size == 1:
        return "1 byte"
    amount, unit = float(size), 0
    while amount >= 1024 and unit < len(UNITS) - 1:
        amount, unit = amount / 1024, unit + 1
    digits = 0 if unit == 0 or amount >= 100 else 1 if amount >= 10 else 2
    text = f"{amount:.{digits}f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} {UNITS[unit]}"


def exact(size: int) -> str:
    """Return bytes with the largest unit of 1024 steps that says them exactly: `1536 MB` for 1.5 GB."""
    unit = 0
    while size and size % 1024 == 0 and unit < len(UNITS) - 1:
        size, unit = size // 1024, unit + 1
    return f"{size} {UNITS[unit]}"


def parse(text: str) -> int:
    """Return the bytes that a text such as `500`, `500 MB` or `1.5 TB` means, in units of 1024 steps.

    Raises:
        ValueError: it means no whole number of bytes from 0 on.
    """
    found = re.fullmatch(r"\s*(\d{1,20}(?:\.\d{1,6})?)\s*(bytes?|[KMGTP]B?)?\s*", text, re.IGNORECASE | re.ASCII)
    if not found:
        raise ValueError(text)
    letter = (found[2] or "b")[0].upper()
    size = Decimal(found[1]) * 1024 ** "BKMGTP".index(letter)
    if size != int(size):
        raise ValueError(text)
    return int(size)
