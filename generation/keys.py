"""Provider keys: storing, checking, finding the one to use, and re-encrypting them. Each act leaves an audit entry."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

import structlog
from django.conf import settings

from engarde.common import encryption
from engarde.common.encryption import Renewal
from engarde.common.paging import Page
from engarde.common.problems import Invalid, NotFound
from engarde.common.scopes import tenant_scope
from generation import prices, providers
from generation.llm.base import KeyRefused, LLMError, NoCredit
from generation.models import ACTIVE, Job, KeyStatus, LLMKey, LLMKeyEvent, Provider
from generation.problems import LLMKeyInvalid, LLMKeyMissing, LLMNoCredit, LLMNotConfigured, LLMUnavailable
from generation.providers import Credential

log = structlog.get_logger(__name__)

Action = LLMKeyEvent.Action
SHORTEST_SHOWN = 12  # of a shorter key, the last four characters would be too much of it


@dataclass(frozen=True, slots=True)
class Writer:
    """What writes: a model at a provider, with a key and a price.

    Attributes:
        price: None where nobody knows it.
    """

    credential: Credential
    model: str
    price: prices.Price | None


def list_keys(*, tenant_id: UUID) -> Sequence[LLMKey]:
    """Return a tenant's keys, by provider."""
    with tenant_scope(tenant_id):
        return list(LLMKey.objects.filter(tenant_id=tenant_id).order_by("provider"))


def list_events(*, tenant_id: UUID, page: int, size: int) -> Page[LLMKeyEvent]:
    """Return a page of the audit trail of a tenant's keys, newest first."""
    with tenant_scope(tenant_id):
        rows = LLMKeyEvent.objects.filter(tenant_id=tenant_id).order_by("-created_at", "-id")
        start = (page - 1) * size
        return Page(rows=list(rows[start : start + size]), number=page, size=size, total=rows.count())


def save_key(*, tenant_id: UUID, provider: Provider, api_key: str, actor_id: UUID, now: datetime) -> LLMKey:
    """Store a tenant's key for a provider in place of the one before, and check it by one cheap call.

    It is stored before it is checked, so whatever comes of the check, even the end of this process, it is there.
    """
    with tenant_scope(tenant_id):
        values = {
            "secret": encryption.encrypt(api_key),
            "master_key_id": encryption.newest_key_id(),
            "last4": api_key[-4:] if len(api_key) >= SHORTEST_SHOWN else "····",
            "status": KeyStatus.UNCHECKED,
            "checked_at": None,
            "updated_at": now,
        }
        key, is_new = LLMKey.objects.update_or_create(tenant_id=tenant_id, provider=provider, defaults=values)
        _audit(key, Action.STORED if is_new else Action.REPLACED, actor_id, now)
        # What the old key had to wait for does not hold for the new one.
        Job.objects.filter(tenant_id=tenant_id, provider=provider, status__in=ACTIVE).update(not_before=None)
    return _check(key, api_key, actor_id, now)


def verify_key(*, tenant_id: UUID, provider: Provider, actor_id: UUID, now: datetime) -> LLMKey:
    """Check a stored key again.

    Raises:
        NotFound: the tenant has no key for the provider.
    """
    with tenant_scope(tenant_id):
        key = _find(tenant_id, provider)
        if key is None:
            raise NotFound("provider key")
    return _check(key, _readable(key), actor_id, now)


def delete_key(*, tenant_id: UUID, provider: Provider, actor_id: UUID, now: datetime) -> None:
    """Remove a key.

    Raises:
        NotFound: the tenant has no key for the provider.
    """
    with tenant_scope(tenant_id):
        key = LLMKey.objects.select_for_update().filter(tenant_id=tenant_id, provider=provider).first()
        if key is None:
            raise NotFound("provider key")
        key.delete()
        _audit(key, Action.REMOVED, actor_id, now)


def _check(key: LLMKey, api_key: str, actor_id: UUID | None, now: datetime) -> LLMKey:
    base_url = settings.LLM_BASE_URLS[key.provider]
    status = KeyStatus.UNREACHABLE
    if base_url:
        status = providers.check(Credential(Provider(key.provider), base_url, api_key, is_tenants=True))
    return _note(key, status, Action.CHECKED, actor_id, now)


def _note(key: LLMKey, status: KeyStatus, action: str, actor_id: UUID | None, now: datetime) -> LLMKey:
    """Note what came of a key, unless it was replaced or removed meanwhile."""
    with tenant_scope(key.tenant_id):
        same = LLMKey.objects.filter(tenant_id=key.tenant_id, id=key.id, secret=key.secret)
        if same.update(status=status, checked_at=now):
            key.status, key.checked_at = status, now
            _audit(key, action, actor_id, now)
    return key


def _audit(key: LLMKey, action: str, actor_id: UUID | None, now: datetime) -> None:
    LLMKeyEvent.objects.create(
        tenant_id=key.tenant_id,
        provider=key.provider,
        action=action,
        last4=key.last4,
        status=key.status,
        actor_id=actor_id,
        created_at=now,
    )


def _find(tenant_id: UUID, provider: str) -> LLMKey | None:
    return LLMKey.objects.filter(tenant_id=tenant_id, provider=provider).first()


def _readable(key: LLMKey) -> str:
    try:
        return encryption.decrypt(key.secret)
    except encryption.Unreadable as error:
        log.error("a provider key cannot be read", provider=key.provider, tenant=str(key.tenant_id))
        raise LLMKeyInvalid(
            f"The stored {key.provider} key cannot be read any more: the key that encrypted it is gone. Store it again."
        ) from error


def find_writer(*, tenant_id: UUID, provider: str | None, model: str | None, now: datetime) -> Writer:
    """Return who writes for a tenant: its own key for the provider, else the platform's, and a model that is there.

    Call it outside a scope: it may ask the provider, for at most VERIFY_SECONDS and once in CATALOGUE_SECONDS.

    Args:
        provider: None for the first that there is a key for.
        model: None for the provider's default.

    Raises:
        LLMKeyMissing: there is no key.
        LLMKeyInvalid, LLMNoCredit: the provider refused it.
        LLMNotConfigured: no local model server is set.
        LLMUnavailable: a local server that has to say which models it has does not answer.
        Invalid: there is no such model.
    """
    credential = _credential(tenant_id, Provider(provider) if provider else _first_provider(tenant_id), now)
    name = _model(credential, tenant_id, model, now)
    return Writer(credential, name, prices.price_of(provider=credential.provider, model=name, now=now))


def credential_of(*, tenant_id: UUID, provider: str, now: datetime) -> Credential:
    """Return the credential to use for a provider: the tenant's own key, else the platform's.

    Raises:
        LLMKeyMissing, LLMKeyInvalid, LLMNotConfigured: see `find_writer`.
    """
    return _credential(tenant_id, Provider(provider), now)


def _credential(tenant_id: UUID, provider: Provider, now: datetime) -> Credential:
    with tenant_scope(tenant_id):
        key = _find(tenant_id, provider)
    base_url = settings.LLM_BASE_URLS[provider]
    if provider == Provider.LOCAL and not base_url:
        raise LLMNotConfigured("No local model server runs: set LOCAL_LLM_BASE_URL, or name another provider.")
    if key is None:
        found = providers.platform_credential(provider)
        if found is None:
            raise LLMKeyMissing(f"There is no key for {provider}: store one with POST /api/llm-keys.")
        return found
    if key.status == KeyStatus.INVALID:
        raise LLMKeyInvalid(f"{provider} refused the stored key …{key.last4}: store another one, or verify it again.")
    return Credential(provider, base_url, _readable(key), is_tenants=True)


def _first_provider(tenant_id: UUID) -> Provider:
    """Return the provider for a caller that names none."""
    with tenant_scope(tenant_id):
        own = list(LLMKey.objects.filter(tenant_id=tenant_id).order_by("created_at"))
    if own:  # when all of them were refused that is said, rather than another provider taken without a word
        return Provider(next((key for key in own if key.is_active), own[0]).provider)
    for provider in Provider:
        if providers.platform_credential(provider):
            return provider
    raise LLMKeyMissing("There is no provider key: store one with POST /api/llm-keys.")


def _model(credential: Credential, tenant_id: UUID, wanted: str | None, now: datetime) -> str:
    listed = _listed(credential, tenant_id, now)
    name = wanted or settings.LLM_DEFAULT_MODELS[credential.provider] or next(iter(listed or ()), "")
    if not name:
        raise LLMUnavailable("The local model server does not say which models it has.", headers={"Retry-After": "5"})
    has_price = credential.provider != Provider.LOCAL and prices.price_of(
        provider=credential.provider, model=name, now=now
    )
    allowed = settings.LLM_PLATFORM_MODELS
    if allowed and not credential.is_tenants and credential.provider != Provider.LOCAL and name not in allowed:
        raise Invalid("model", f"On the platform's key only: {', '.join(allowed)}.", "model_not_allowed")
    # An alias may be missing from the provider's list; what has a list price exists.
    if listed and name not in listed and not has_price:
        raise Invalid("model", f"{credential.provider} has no model {name} for this key.", "unknown_model")
    return name


def _listed(credential: Credential, tenant_id: UUID, now: datetime) -> list[str] | None:
    """Return the provider's models; None when it cannot say now, which is no reason to refuse."""
    try:
        return providers.models(credential)
    except (KeyRefused, NoCredit) as error:
        note_refusal(tenant_id=tenant_id, credential=credential, error=error, now=now)
        raise refusal_of(error, credential) from error
    except LLMError as error:
        log.info("a provider does not list its models", provider=credential.provider, error=str(error))
        return None


def refusal_of(error: KeyRefused | NoCredit, credential: Credential) -> LLMKeyInvalid | LLMNoCredit:
    """Return the problem that a caller is told of."""
    whose = "your key" if credential.is_tenants else "the platform's key"
    if isinstance(error, NoCredit):
        return LLMNoCredit(f"{credential.provider} says that the account of {whose} has no credit left.")
    return LLMKeyInvalid(f"{credential.provider} refused {whose}: store another one.")


def note_refusal(*, tenant_id: UUID, credential: Credential, error: LLMError, now: datetime) -> None:
    """Note on a tenant's key that the provider refused it, outside any scope."""
    if not credential.is_tenants:
        log.error("a provider refused the platform's key", provider=credential.provider, code=error.code)
        return
    with tenant_scope(tenant_id):
        key = _find(tenant_id, credential.provider)
    if key is None or _secret_of(key) != credential.api_key:
        return
    status = KeyStatus.NO_CREDIT if isinstance(error, NoCredit) else KeyStatus.INVALID
    if key.status != status:
        _note(key, status, Action.REFUSED, None, now)


def _secret_of(key: LLMKey) -> str | None:
    try:
        return encryption.decrypt(key.secret)
    except encryption.Unreadable:
        return None


def renew_keys(*, tenant_id: UUID, dry_run: bool = False) -> Renewal:
    """Encrypt a tenant's keys under the newest master key; one that no master key reads is left and counted."""
    newest, done = encryption.newest_key_id(), Renewal()
    with tenant_scope(tenant_id):
        for key in LLMKey.objects.select_for_update().filter(tenant_id=tenant_id).order_by("provider"):
            try:
                renewed = encryption.renew(key.secret)
            except encryption.Unreadable:
                log.error("a provider key cannot be renewed", provider=key.provider, tenant=str(tenant_id))
                done += Renewal(total=1, unreadable=1)
                continue
            is_old = key.master_key_id != newest
            done += Renewal(total=1, renewed=int(is_old))
            if is_old and not dry_run:
                key.secret, key.master_key_id = renewed, newest
                key.save(update_fields=["secret", "master_key_id"])
    return done
