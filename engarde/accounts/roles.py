"""Roles of people, scopes of API keys, and how one implies the other."""

from django.db.models import TextChoices


class Role(TextChoices):
    """What a member may do in a tenant, from most to least."""

    OWNER = "owner"
    ADMIN = "admin"
    EDITOR = "editor"
    VIEWER = "viewer"


class Scope(TextChoices):
    """What an API key may do."""

    CONTENT_READ = "content:read"
    CONTENT_WRITE = "content:write"
    GENERATE = "generate"
    QUOTA_READ = "quota:read"
    ADMIN = "admin"


_VIEWER = frozenset({Scope.CONTENT_READ, Scope.QUOTA_READ})
_EDITOR = _VIEWER | {Scope.CONTENT_WRITE, Scope.GENERATE}
_ADMIN = _EDITOR | {Scope.ADMIN}

SCOPES_OF: dict[str, frozenset[Scope]] = {
    Role.VIEWER: _VIEWER,
    Role.EDITOR: _EDITOR,
    Role.ADMIN: _ADMIN,
    Role.OWNER: _ADMIN,
}
ALL_SCOPES = _ADMIN
