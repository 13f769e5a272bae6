"""Credentials of providers, and what can be asked of a provider at once: does the key work, which models are there."""

import asyncio
import hashlib
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from cachetools import TTLCache
from django.conf import settings

from generation.llm import registry
from generation.llm.base import VERIFY_SECONDS, KeyRefused, LLMError, NoCredit, TextGenerator, TimedOut, Unavailable
from generation.models import KeyStatus, Provider

CATALOGUE_SECONDS = 600
SILENT_SECONDS = 30
MOST_AT_ONCE = 6  # threads of a process that wait for lists of models
MAX_CATALOGUES = 1000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Credential:
    """A provider with the key to use there.

    Attributes:
        is_tenants: whether the key is the tenant's own, and not the platform's.
    """

    provider: Provider
    base_url: str
    api_key: str = field(repr=False)
    is_tenants: bool

    @property
    def fingerprint(self) -> str:
        """What everybody who uses the same key of the same provider has in common; the key cannot be told from it."""
        text = f"{settings.SECRET_KEY}\0{self.base_url}\0{self.api_key}"
        return f"{self.provider}:{hashlib.sha256(text.encode()).hexdigest()[:24]}"

    def generator(self) -> TextGenerator:
        """Return a generator, to be used and closed inside one event loop."""
        return registry.make(self.provider, base_url=self.base_url, api_key=self.api_key)


def platform_credential(provider: Provider) -> Credential | None:
    """Return the platform's own credential for a provider; None without a key, or without an address for `local`."""
    base_url, api_key = settings.LLM_BASE_URLS[provider], settings.LLM_PLATFORM_KEYS[provider]
    is_usable = base_url if provider == Provider.LOCAL else api_key
    return Credential(provider, base_url, api_key, is_tenants=False) if is_usable else None


def ask(credential: Credential, question: Callable[[TextGenerator], Awaitable[T]], *, seconds: float) -> T:
    """Ask a provider something from a thread without an event loop, within so many seconds.

    Raises:
        LLMError: one of its subclasses; `TimedOut` when the time is over.
    """
    return asyncio.run(_ask(credential, question, seconds))


async def _ask(credential: Credential, question: Callable[[TextGenerator], Awaitable[T]], seconds: float) -> T:
    generator = credential.generator()
    try:
        async with asyncio.timeout(seconds):
            return await question(generator)
    except TimeoutError as error:
        raise TimedOut("The provider did not answer in time.") from error
    finally:
        await generator.close()


def check(credential: Credential) -> KeyStatus:
    """Return what one cheap call says of a key, within VERIFY_SECONDS."""
    _forget(credential)
    try:
        models(credential)
    except KeyRefused:
        return KeyStatus.INVALID
    except NoCredit:
        return KeyStatus.NO_CREDIT
    except LLMError:
        return KeyStatus.UNREACHABLE
    return KeyStatus.VALID


_catalogues: TTLCache[str, list[str]] = TTLCache(MAX_CATALOGUES, CATALOGUE_SECONDS)
_silent: TTLCache[str, str] = TTLCache(MAX_CATALOGUES, SILENT_SECONDS)  # providers that did not answer, and why
_lock = threading.Lock()
_asking = threading.BoundedSemaphore(MOST_AT_ONCE)


def models(credential: Credential) -> list[str]:
    """Return the models that a key may use, at most CATALOGUE_SECONDS old.

    Raises:
        LLMError: one of its subclasses.
    """
    with _lock:
        known, silence = _catalogues.get(credential.fingerprint), _silent.get(credential.fingerprint)
    if known is not None:
        return known
    if silence is not None:
        raise Unavailable(silence)
    try:
        found = _ask_for_models(credential)
    except Unavailable as error:
        with _lock:
            _silent[credential.fingerprint] = str(error)
        raise
    with _lock:
        _catalogues[credential.fingerprint] = found
    return found


def _ask_for_models(credential: Credential) -> list[str]:
    """Ask, unless too many threads of this process wait for providers already."""
    if not _asking.acquire(blocking=False):
        raise Unavailable("Too many providers are being asked at once; try again soon.")
    try:
        return ask(credential, lambda generator: generator.models(), seconds=VERIFY_SECONDS)
    finally:
        _asking.release()


def _forget(credential: Credential) -> None:
    with _lock:
        _catalogues.pop(credential.fingerprint, None)
        _silent.pop(credential.fingerprint, None)


def forget_models() -> None:
    """Ask providers anew."""
    with _lock:
        _catalogues.clear()
        _silent.clear()
