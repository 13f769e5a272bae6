"""Stored secrets: read by every key of the ring, written under the newest."""

from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured

from engarde.common import encryption

OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))


def test_what_was_encrypted_is_read_again_and_does_not_show(settings: Any) -> None:
    settings.ENCRYPTION_KEYS = [NEW]

    token = encryption.encrypt("a secret, ünïcode")

    assert encryption.decrypt(token) == "a secret, ünïcode"
    assert "secret" not in token
    assert encryption.encrypt("a secret, ünïcode") != token


def test_the_newest_key_writes_and_older_ones_read(settings: Any) -> None:
    settings.ENCRYPTION_KEYS = [OLD]
    token = encryption.encrypt("secret")
    settings.ENCRYPTION_KEYS = [NEW, OLD]

    assert encryption.decrypt(token) == "secret"
    assert Fernet(NEW).decrypt(encryption.encrypt("secret").encode()) == b"secret"


def test_renewed_it_is_read_without_the_old_key(settings: Any) -> None:
    settings.ENCRYPTION_KEYS = [OLD]
    token = encryption.encrypt("secret")
    settings.ENCRYPTION_KEYS = [NEW, OLD]

    renewed = encryption.renew(token)

    settings.ENCRYPTION_KEYS = [NEW]
    assert encryption.decrypt(renewed) == "secret"
    with pytest.raises(encryption.Unreadable):
        encryption.decrypt(token)
    with pytest.raises(encryption.Unreadable):
        encryption.renew(token)


def test_without_keys_one_is_derived_that_reads_on_when_keys_are_set(settings: Any) -> None:
    settings.ENCRYPTION_KEYS = []
    token = encryption.encrypt("secret")

    settings.ENCRYPTION_KEYS = [NEW]
    assert encryption.decrypt(token) == "secret"
    settings.ENCRYPTION_KEYS, settings.SECRET_KEY = [], "another"
    with pytest.raises(encryption.Unreadable):
        encryption.decrypt(token)


@pytest.mark.parametrize("token", ["", "nonsense", "é"])
def test_what_is_no_token_is_unreadable(token: str) -> None:
    with pytest.raises(encryption.Unreadable):
        encryption.decrypt(token)


def test_a_key_of_another_form_is_named_without_telling_it(settings: Any) -> None:
    settings.ENCRYPTION_KEYS = ["hunter2"]

    with pytest.raises(ImproperlyConfigured) as caught:
        encryption.encrypt("secret")
    assert "hunter2" not in str(caught.value)
