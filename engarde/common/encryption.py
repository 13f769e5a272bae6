"""Encryption of secrets that the platform must be able to read again: webhook secrets, and whatever else a room stores.

Fernet under a key ring: the newest key of ENCRYPTION_KEYS encrypts, every key of it decrypts. The last key of the ring is
always derived from SECRET_KEY, so that without the setting there is one, and setting it later makes nothing unreadable.
"""

from base64 import urlsafe_b64encode
from dataclasses import dataclass
from functools import cache
from hashlib import sha256

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


class Unreadable(Exception):
    """No key of the ring reads it: the one that encrypted it was removed, or it was damaged."""


def encrypt(text: str) -> str:
    """Return a text encrypted under the newest key."""
    return _ring().encrypt(text.encode()).decode("ascii")


def decrypt(token: str) -> str:
    """Return the text that was encrypted under any key of the ring.

    Raises:
        Unreadable: none of them reads it.
    """
    try:
        return _ring().decrypt(token.encode()).decode()
    except InvalidToken as error:
        raise Unreadable("no key of ENCRYPTION_KEYS reads this secret") from error


def renew(token: str) -> str:
    """Return the same text encrypted under the newest key.

    Raises:
        Unreadable: no key of the ring reads it.
    """
    try:
        return _ring().rotate(token.encode()).decode("ascii")
    except InvalidToken as error:
        raise Unreadable("no key of ENCRYPTION_KEYS reads this secret") from error


@dataclass(frozen=True, slots=True)
class Renewal:
    """What came of encrypting secrets anew.

    Attributes:
        renewed: those that were under an older key, or would be with a dry run.
        unreadable: those that no key of the ring reads; they are left as they are.
    """

    total: int = 0
    renewed: int = 0
    unreadable: int = 0

    def __add__(self, other: "Renewal") -> "Renewal":
        return Renewal(self.total + other.total, self.renewed + other.renewed, self.unreadable + other.unreadable)


def newest_key_id() -> str:
    """Return a name of the key that encrypts now, from which the key cannot be told."""
    keys = settings.ENCRYPTION_KEYS
    newest = keys[0] if keys else _derived(settings.SECRET_KEY).decode("ascii")
    return sha256(newest.encode()).hexdigest()[:16]


def _ring() -> MultiFernet:
    return _ring_of(tuple(settings.ENCRYPTION_KEYS), settings.SECRET_KEY)


@cache
def _ring_of(keys: tuple[str, ...], secret_key: str) -> MultiFernet:
    return MultiFernet([*(_fernet(key) for key in keys), Fernet(_derived(secret_key))])


def _fernet(key: str) -> Fernet:
    try:
        return Fernet(key)
    except ValueError as error:
        raise ImproperlyConfigured("ENCRYPTION_KEYS: each is 32 random bytes in URL-safe base64.") from error


def _derived(secret_key: str) -> bytes:
    hkdf = HKDF(algorithm=SHA256(), length=32, salt=None, info=b"engarde.common.encryption")
    return urlsafe_b64encode(hkdf.derive(secret_key.encode()))
