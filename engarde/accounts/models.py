"""Tenants, brands, users, memberships, API keys, sessions and mail that is to be sent."""

from typing import Any, ClassVar

from django.contrib.auth.models import AbstractBaseUser, BaseUserManager, PermissionsMixin
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Lower, Now
from uuid_utils.compat import uuid7

from engarde.accounts.roles import Role, Scope
from engarde.common.constraints import BackedUp, RowSecurity
from engarde.common.time_zones import validate_time_zone


class Tenant(models.Model):
    """A customer: everything that belongs to it carries its id, and PostgreSQL keeps others out."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    name = models.CharField(max_length=200)
    time_zone = models.CharField(
        max_length=64,
        default="UTC",
        db_default="UTC",
        validators=[validate_time_zone],
        help_text="An IANA name such as Europe/Berlin; the tenant's months begin at midnight there.",
    )
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [
            RowSecurity(name="tenant_row_security", column="id"),
            BackedUp(name="tenant_backed_up", entity_type="tenant", tenant="id"),
        ]

    def __str__(self) -> str:
        return self.name


class Brand(models.Model):
    """A tenant's brand: content belongs to one; its voice and language guide generation and search."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="brands")
    name = models.CharField(max_length=200)
    voice = models.TextField(blank=True, default="")
    language = models.CharField(max_length=35, default="en", help_text="A BCP 47 tag such as en or pt-BR.")
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "id"], name="brand_of_tenant"),
            RowSecurity(name="brand_row_security"),
            BackedUp(name="brand_backed_up", entity_type="brand"),
        ]

    def __str__(self) -> str:
        return self.name


class UserManager(BaseUserManager["User"]):
    """Makes users with normalised e-mail addresses."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """Create a user; without a password only a reset or an invitation lets the person in."""
        user = self.model(email=normalise_email(email), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        """Create a member of the platform's staff with every permission in the admin."""
        return self.create_user(email, password, is_staff=True, is_superuser=True, **fields)

    def get_by_natural_key(self, username: str | None) -> "User":
        """Return the user with an e-mail address, whatever its case."""
        return self.get(email=normalise_email(username or ""))


def normalise_email(email: str) -> str:
    """Return the form in which addresses are stored and compared."""
    return email.strip().lower()


class User(AbstractBaseUser, PermissionsMixin):
    """A person; may be a member of several tenants, or of the platform's staff."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    email = models.EmailField(unique=True)
    first_name = models.CharField(max_length=150, blank=True, default="")
    last_name = models.CharField(max_length=150, blank=True, default="")
    is_active = models.BooleanField(default=True)
    is_staff = models.BooleanField(default=False)
    email_verified_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now())

    objects: ClassVar[UserManager] = UserManager()

    USERNAME_FIELD = "email"

    class Meta:
        constraints: ClassVar = [
            models.CheckConstraint(condition=Q(email=Lower(F("email"))), name="user_email_in_lower_case"),
            BackedUp(name="user_backed_up", entity_type="user", tenant="", left_out=["last_login"]),
        ]

    def __str__(self) -> str:
        return self.email

    def clean(self) -> None:
        """Bring the address that a form was given into the form in which it is stored."""
        super().clean()
        self.email = normalise_email(self.email)


class Membership(models.Model):
    """A person's role in a tenant; without `accepted_at` it is an invitation and lets nobody in."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="memberships")
    user = models.ForeignKey(User, models.CASCADE, related_name="memberships")
    role = models.CharField(max_length=10, choices=Role.choices)
    accepted_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        constraints: ClassVar = [
            models.UniqueConstraint(fields=["tenant", "user"], name="one_membership_per_tenant_and_user"),
            models.CheckConstraint(condition=Q(role__in=Role.values), name="membership_role_known"),
            RowSecurity(name="membership_row_security"),
            BackedUp(name="membership_backed_up", entity_type="membership"),
        ]

    def __str__(self) -> str:
        return f"{self.user_id} {self.role}"


class ApiKey(models.Model):
    """A tenant's key for programs; only hashes of its secret are stored.

    After a rotation the previous secret works until `previous_expires_at`.
    """

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    tenant = models.ForeignKey(Tenant, models.CASCADE, related_name="api_keys")
    name = models.CharField(max_length=200)
    public_id = models.CharField(max_length=12, unique=True, help_text="The part of the key that finds its row.")
    last4 = models.CharField(max_length=4)
    scopes = ArrayField(models.CharField(max_length=20, choices=Scope.choices))
    secret_hash = models.BinaryField(help_text="SHA-256 of the whole key; its secret has 256 random bits.")
    previous_hash = models.BinaryField(null=True)
    previous_expires_at = models.DateTimeField(null=True)
    created_by = models.UUIDField(null=True)
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)
    last_used_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints: ClassVar = [
            RowSecurity(name="api_key_row_security"),
            BackedUp(name="api_key_backed_up", entity_type="api_key", left_out=["last_used_at"]),
        ]
        indexes: ClassVar = [models.Index(fields=["tenant", "-created_at"], name="api_key_by_tenant")]

    def __str__(self) -> str:
        return f"{self.name} ({self.public_id})"


class Session(models.Model):
    """A login: its refresh token is used once and then replaced; ending it ends its access tokens too."""

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(User, models.CASCADE, related_name="sessions")
    refresh_hash = models.BinaryField(help_text="SHA-256 of the one refresh token that is good now.")
    created_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(db_index=True)
    ended_at = models.DateTimeField(null=True, blank=True)

    def __str__(self) -> str:
        return str(self.id)


class Mail(models.Model):
    """A message that a transaction decided to send; its task makes the text (and any token) when it sends it."""

    class Kind(models.TextChoices):
        """What the message is about."""

        INVITATION = "invitation"
        MEMBERSHIP = "membership"
        PASSWORD_RESET = "password_reset"  # noqa: S105 -- the name of a mail
        WEBHOOK_DISABLED = "webhook_disabled"
        GENERATION_ENDED = "generation_ended"
        BACKUP_TROUBLE = "backup_trouble"
        BACKUP_WELL = "backup_well"

    id = models.UUIDField(primary_key=True, default=uuid7, editable=False)
    user = models.ForeignKey(User, models.CASCADE)
    kind = models.CharField(max_length=20, choices=Kind.choices)
    tenant_name = models.CharField(max_length=200, blank=True, default="")
    details = models.JSONField(default=dict, db_default={}, help_text="What the text tells, for its template.")
    attempts = models.PositiveSmallIntegerField(default=0)
    next_attempt_at = models.DateTimeField(db_default=Now(), db_index=True)
    created_at = models.DateTimeField(db_default=Now())

    def __str__(self) -> str:
        return f"{self.kind} to {self.user_id}"
