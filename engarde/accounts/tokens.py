"""Access tokens (JWT), refresh tokens and the tokens that are sent by mail."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

import jwt
from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.contrib.auth.tokens import PasswordResetTokenGenerator
from django.utils.encoding import DjangoUnicodeDecodeError
from django.utils.http import urlsafe_base64_decode, urlsafe_base64_encode

from engarde.accounts.models import User

ALGORITHM = "HS256"
AUDIENCE = "engarde-api"


@dataclass(frozen=True, slots=True)
class AccessClaims:
    """What an access token says."""

    user_id: UUID
    session_id: UUID


def make_access_token(*, user_id: UUID, session_id: UUID, now: datetime) -> str:
    """Return a signed access token that is good for ACCESS_TOKEN_SECONDS."""
    expires = now + timedelta(seconds=settings.ACCESS_TOKEN_SECONDS)
    claims = {"sub": str(user_id), "sid": str(session_id), "aud": AUDIENCE, "iat": now, "exp": expires}
    return jwt.encode(claims, settings.SECRET_KEY, algorithm=ALGORITHM)


def read_access_token(token: str) -> AccessClaims | None:
    """Return a token's claims, or None when it is forged, malformed or expired."""
    try:
        claims = jwt.decode(
            token,
            settings.SECRET_KEY,
            algorithms=[ALGORITHM],
            audience=AUDIENCE,
            options={"require": ["exp", "sub", "sid"], "verify_iat": False},  # clocks of several hosts differ
        )
        return AccessClaims(user_id=UUID(claims["sub"]), session_id=UUID(claims["sid"]))
    except (jwt.InvalidTokenError, ValueError):
        return None


def make_refresh_token(session_id: UUID) -> str:
    """Return a new refresh token for a session."""
    return f"{session_id}.{secrets.token_urlsafe(32)}"


def session_of(refresh_token: str) -> UUID | None:
    """Return the session that a refresh token claims to belong to."""
    try:
        return UUID(refresh_token.partition(".")[0])
    except ValueError:
        return None


def digest(token: str) -> bytes:
    """Return the SHA-256 of a refresh token."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()


class MailTokens(PasswordResetTokenGenerator):
    """Django's tokens, but not bound to the last login: whoever else knows the password could spoil a mail by logging in."""

    def _make_hash_value(self, user: AbstractBaseUser, timestamp: int) -> str:
        return f"{user.pk}{user.password}{timestamp}{getattr(user, 'email', '')}"


_mail_tokens = MailTokens()


def make_mail_token(user: User) -> str:
    """Return a token that lets the reader of a mail set the user's password, once, within PASSWORD_RESET_TIMEOUT."""
    return f"{urlsafe_base64_encode(str(user.pk).encode())}.{_mail_tokens.make_token(user)}"


def user_id_of_mail_token(token: str) -> UUID | None:
    """Return the user that a mail token claims to be for."""
    try:
        return UUID(urlsafe_base64_decode(token.partition(".")[0]).decode())
    except (ValueError, DjangoUnicodeDecodeError):
        return None


def mail_token_is_good(user: User, token: str) -> bool:
    """Tell whether a mail token is this user's, unexpired and unused."""
    return _mail_tokens.check_token(user, token.partition(".")[2])
