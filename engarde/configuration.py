"""What settings have to fulfil together, looked at when they are read: each fault is told with what to set instead."""

import re
from base64 import urlsafe_b64decode
from binascii import Error as NotBase64
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from engarde import env

Settings = Mapping[str, Any]

AT_LEAST_ONE = (
    "WEB_THREADS",
    "CONTENT_UPLOAD_BATCH",
    "CONTENT_UPLOAD_THREADS",
    "CONTENT_MAX_BODY_BYTES",
    "REQUEST_MAX_BYTES",
    "MEDIA_MAX_BYTES",
    "MEDIA_URL_SECONDS",
    "BIGQUERY_SYNC_BATCH_SIZE",
    "GENERATE_CONCURRENCY",
    "GENERATE_TIMEOUT_SECONDS",
    "GENERATION_CALL_TIMEOUT_SECONDS",
    "GENERATION_MAX_ATTEMPTS",
    "GENERATION_MAX_TOKENS",
    "GENERATION_SHARDS",
    "GENERATION_SLICE_SECONDS",
    "GENERATION_LEASE_SECONDS",
    "ACCESS_TOKEN_SECONDS",
    "REFRESH_TOKEN_SECONDS",
    "DR_RPO_TARGET_SECONDS",
)
ADDRESSES = ("PUBLIC_URL", "UPGRADE_URL", "ZERODB_BASE_URL", "BIGQUERY_EMULATOR_HOST")
RATE = re.compile(r"off|[1-9]\d*/(s|sec|second|min|minute|m|h|hour|d|day)")


def problems(settings: Settings) -> list[str]:
    """Return what is wrong with settings, in words for whoever sets them; nothing when they can be used."""
    return [problem for look in LOOKS for problem in look(settings)]


def _numbers(settings: Settings) -> Iterator[str]:
    for name in AT_LEAST_ONE:
        if settings[name] < 1:
            yield f"{name} is {settings[name]}; set 1 or more."
    if settings["GENERATE_CONCURRENCY"] >= settings["WEB_THREADS"] > 1:
        yield (
            f"GENERATE_CONCURRENCY ({settings['GENERATE_CONCURRENCY']}) has to be less than WEB_THREADS "
            f"({settings['WEB_THREADS']}): calls that generate would take every thread."
        )


def _addresses(settings: Settings) -> Iterator[str]:
    named = {name: settings[name] for name in ADDRESSES}
    named |= {f"{provider.upper()}_BASE_URL": url for provider, url in settings["LLM_BASE_URLS"].items()}
    named["LOCAL_LLM_BASE_URL"] = named.pop("LOCAL_BASE_URL")
    for name, url in named.items():
        if url and not (urlsplit(url).scheme in ("http", "https") and urlsplit(url).hostname):
            yield f"{name} is {url!r}; set an address such as https://content.example.com."
    if urlsplit(settings["REDIS_URL"]).scheme not in ("redis", "rediss", "unix"):
        yield "REDIS_URL cannot be read as an address; write it as redis://:password@host:6379/0."
    if "{token}" not in settings["PASSWORD_RESET_URL"]:
        yield "PASSWORD_RESET_URL lacks {token}, where the token is put: https://…/reset-password?token={token}"


def _rates(settings: Settings) -> Iterator[str]:
    for name in ("THROTTLE_LOGIN", "THROTTLE_TENANT"):
        if not RATE.fullmatch(settings[name].strip()):
            yield f"{name} is {settings[name]!r}; set a rate such as 20/min or 200/s, or off."


def _secrets(settings: Settings) -> Iterator[str]:
    for number, key in enumerate(settings["ENCRYPTION_KEYS"], 1):
        if not _is_fernet_key(key):
            yield (
                f"ENCRYPTION_KEYS: number {number} is no key. Make one: python -c "
                "'from cryptography.fernet import Fernet; print(Fernet.generate_key().decode())'"
            )


def _is_fernet_key(text: str) -> bool:
    try:
        return len(urlsafe_b64decode(text)) == 32
    except (NotBase64, ValueError):
        return False


def _zerodb(settings: Settings) -> Iterator[str]:
    key, project = settings["ZERODB_API_KEY"], settings["ZERODB_PROJECT_ID"]
    if key and not project and "{project_id}" in settings["ZERODB_BASE_PATH"]:
        yield "ZERODB_API_KEY is set but ZERODB_PROJECT_ID is not: set the project that holds the documents."
    if project and not key:
        yield "ZERODB_PROJECT_ID is set but ZERODB_API_KEY is not: set the key, or neither."
    if settings["ZERODB_FILTER_KEY"] not in ("filter", "filters"):
        yield f"ZERODB_FILTER_KEY is {settings['ZERODB_FILTER_KEY']!r}; it can be: filter, filters."


def _bigquery(settings: Settings) -> Iterator[str]:
    project, is_on = settings["BIGQUERY_PROJECT_ID"], settings["BIGQUERY_SYNC_ENABLED"]
    if settings["PRODUCTION"] and is_on and not project:
        yield "BIGQUERY_SYNC_ENABLED is on but BIGQUERY_PROJECT_ID is not set: set it, or BIGQUERY_SYNC_ENABLED=false."
    if settings["BIGQUERY_EMULATOR_HOST"] and not settings["BIGQUERY_EMULATOR_GRPC_HOST"]:
        yield "BIGQUERY_EMULATOR_HOST is set but BIGQUERY_EMULATOR_GRPC_HOST is not: the emulator is asked at both."
    if not re.fullmatch(r"\w{1,1024}", settings["BIGQUERY_DATASET"], re.ASCII):
        yield f"BIGQUERY_DATASET is {settings['BIGQUERY_DATASET']!r}; set letters, digits and underscores."


def _media(settings: Settings) -> Iterator[str]:
    for prefix in ("MEDIA", "DR_MEDIA"):
        chosen = settings[f"{prefix}_STORAGE"]
        if chosen in env.CLIENTS and not settings[f"{prefix}_STORAGES"][chosen]["OPTIONS"]["bucket_name"]:
            yield f"{prefix}_STORAGE={chosen} needs {prefix}_{chosen.upper()}_BUCKET, the bucket's name."


def _generation(settings: Settings) -> Iterator[str]:
    for model, price in settings["LLM_PRICES"].items():
        is_pair = isinstance(price, list) and len(price) == 2 and all(type(part) in (int, float) for part in price)
        if "/" not in model or not is_pair:
            yield f'LLM_PRICES: write "provider/model": [USD per million tokens in, out]; {model!r} is not like that.'


def _production(settings: Settings) -> Iterator[str]:
    if settings["PRODUCTION"] and settings["DEBUG"]:
        yield "DEBUG=true shows settings and code to whoever makes a request fail: leave it out in production."


LOOKS = (_production, _numbers, _addresses, _rates, _secrets, _zerodb, _bigquery, _media, _generation)
