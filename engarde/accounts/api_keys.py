"""The text of API keys: `eg_live_<id>_<secret><checksum>`."""

import hashlib
import re
import secrets
import string
import zlib
from dataclasses import dataclass

ALPHABET = string.digits + string.ascii_uppercase + string.ascii_lowercase
PREFIX = "eg_live_"
ID_LENGTH = 12
SECRET_LENGTH = 43  # 43 base-62 characters carry 256 bits
CHECKSUM_LENGTH = 6  # 6 base-62 characters hold a CRC-32
SHAPE = re.compile(rf"{PREFIX}([0-9A-Za-z]{{{ID_LENGTH}}})_[0-9A-Za-z]{{{SECRET_LENGTH + CHECKSUM_LENGTH}}}")


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key as it is shown once."""

    public_id: str
    text: str

    @property
    def last4(self) -> str:
        """The last four characters, by which people recognise it."""
        return self.text[-4:]


def make(public_id: str | None = None) -> NewKey:
    """Make a key; with `public_id`, a new secret for the key that has it."""
    public_id = public_id or _random(ID_LENGTH)
    unchecked = f"{PREFIX}{public_id}_{_random(SECRET_LENGTH)}"
    return NewKey(public_id=public_id, text=unchecked + _checksum(unchecked))


def public_id_of(text: str) -> str | None:
    """Return the id inside a key, or None for junk: typos and guesses are refused before any query."""
    shape = SHAPE.fullmatch(text)
    well_formed = shape and secrets.compare_digest(_checksum(text[:-CHECKSUM_LENGTH]), text[-CHECKSUM_LENGTH:])
    return shape.group(1) if shape and well_formed else None


def looks_like_key(text: str) -> bool:
    """Tell a key from an access token."""
    return text.startswith("eg_")


def digest(text: str) -> bytes:
    """Return the SHA-256 of a key; a slow hash would add nothing to a secret of 256 bits."""
    return hashlib.sha256(text.encode()).digest()


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _checksum(text: str) -> str:
    number, digits = zlib.crc32(text.encode()), ""
    for _ in range(CHECKSUM_LENGTH):
        number, digit = divmod(number, len(ALPHABET))
        digits = ALPHABET[digit] + digits
    return digits
