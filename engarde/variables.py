"""What each variable of the environment means, and the table of them in docs/guides/deployment.md.

    python -m engarde.variables            # writes the table
    python -m engarde.variables --check    # fails when it, or .env.example, is not what the code reads

Names, kinds and defaults come from the settings, which are read here in a clean environment.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from engarde.env import BASE_DIR, FROM_FILES, Variable

GUIDE = BASE_DIR / "docs" / "guides" / "deployment.md"
EXAMPLE = BASE_DIR / ".env.example"
BEGIN, END = "<!-- variables: written by python -m engarde.variables -->", "<!-- end of variables -->"
SECRETS = frozenset(FROM_FILES) - {"ZERODB_PROJECT_ID", "BIGQUERY_PROJECT_ID"} | {"POSTGRES_PASSWORD"}
# Read by other programs than the settings: their kind and default.
ELSEWHERE = (
    Variable("WEB_WORKERS", "whole number", "2"),
    Variable("EMBEDDED_LLM", "true or false", "on"),
    Variable("PROMETHEUS_MULTIPROC_DIR", "text", ""),
)
COMPOSE = (
    Variable("POSTGRES_PASSWORD", "text", ""),
    Variable("ENGARDE_VERSION", "text", "latest"),
    Variable("MEDIA_CLIENTS", "text", ""),
    Variable("OBSERVABILITY", "text", ""),
    Variable("WEBSOCKET_PORT", "whole number", "8001"),
    Variable("WEBSOCKET_WORKERS", "whole number", "1"),
    Variable("WORKER_CONCURRENCY", "whole number", "2"),
    Variable("REDIS_MAXMEMORY", "text", "512mb"),
    Variable("PROMETHEUS_PORT", "whole number", "9090"),
)
# Where the default depends on the machine or on another variable.
SHOWN = {
    "SECRET_KEY": "in development one that everybody knows",
    "ALLOWED_HOSTS": "none; in development this machine",
    "PUBLIC_URL": "`http://127.0.0.1:$PORT`",
    "DATABASE_URL": "embedded in development",
    "PROMETHEUS_MULTIPROC_DIR": "none; in the image `/run/metrics`",
    "REDIS_URL": "embedded in development",
    "EMAIL_URL": "files in `DATA_DIR/mail`",
    "MEDIA_INCOMING_DIR": "`DATA_DIR/media/incoming`",
    "DR_MEDIA_ROOT": "`DATA_DIR/media_backup`",
    "PASSWORD_RESET_URL": "`$PUBLIC_URL/reset-password?token={token}`",
}

MEANINGS: Mapping[str, Mapping[str, str]] = {
    "What every deployment sets": {
        "ENGARDE_ENV": "`production` refuses default secrets and never starts an embedded service; else `development`",
        "SECRET_KEY": "signs tokens, sessions and links: a long random text",
        "ENCRYPTION_KEYS": "what stored secrets are encrypted with: Fernet keys by commas, the newest first. Without it a key is "
        "derived from `SECRET_KEY`",
        "ALLOWED_HOSTS": "host names that are served, by commas",
        "PUBLIC_URL": "where people find the platform; for links in mails",
        "DATABASE_URL": "PostgreSQL: an ordinary owner of the database, not a superuser and without BYPASSRLS. Compose sets it",
        "REDIS_URL": "Redis or Valkey, with a volatile `maxmemory-policy`, or `noeviction`. Compose sets it",
        "EMAIL_URL": "how mail is sent: `smtp+tls://user:password@smtp.example.com:587`",
        "DEFAULT_FROM_EMAIL": "who sends it",
    },
    "The web processes": {
        "PORT": "the port on this machine, for `make up`, Compose, the Procfile and the image",
        "WEB_WORKERS": "processes",
        "WEB_THREADS": "threads for HTTP in each of them; each keeps a [connection to PostgreSQL](#connections-to-postgresql)",
        "BEHIND_TLS_PROXY": "believe `X-Forwarded-Proto`: a proxy in front ends TLS and sets it",
        "TRUSTED_PROXIES": "how many proxies in front add to `X-Forwarded-For`; 0: the header is not believed",
        "SECURE_SSL_REDIRECT": "redirect HTTP to HTTPS",
        "SECURE_HSTS_SECONDS": "how long browsers are told to use HTTPS only",
        "CORS_ALLOWED_ORIGINS": "origins of browsers that may call the API, by commas",
        "CSRF_TRUSTED_ORIGINS": "origins from which the admin's forms may be sent, by commas",
        "REQUEST_MAX_BYTES": "the largest request, files aside",
        "DEBUG": "Django's error pages; refused in production",
        "THROTTLE_LOGIN": "logins by account and address, such as 20/min; `off` for none",
        "THROTTLE_TENANT": "requests of a tenant",
        "THROTTLE_KEY_PREFIX": "before the throttles' keys in Redis, where several platforms share one",
    },
    "Data, logs, metrics": {
        "DATA_DIR": "where files are kept, and in development the embedded services' data",
        "DATABASE_CONN_MAX_AGE": "seconds that a connection to PostgreSQL is kept",
        "REDIS_TIMEOUT_SECONDS": "how long a request waits for Redis before it goes on without",
        "LOG_LEVEL": "DEBUG, INFO, WARNING, ERROR or CRITICAL",
        "LOG_JSON": "a JSON object a line; else lines for people",
        "METRICS_TOKEN": "what `/metrics` asks for as a bearer token; empty: nothing, so whoever reaches it may read",
        "PROMETHEUS_MULTIPROC_DIR": "a folder, made if need be, in which the processes of one machine or container add up what they "
        "count. Empty it before they start, unless it goes away with them as in a container",
        "SENTRY_DSN": "errors go to this project of Sentry; needs `requirements-observability.txt` (`OBSERVABILITY` for the image)",
        "SENTRY_TRACES_SAMPLE_RATE": "the share of requests and tasks of which Sentry gets a trace too",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "traces go to this OpenTelemetry collector, by HTTP; needs `requirements-observability.txt`. "
        "The SDK reads its other `OTEL_…` variables itself",
        "WORKER_METRICS_PORT": "where a Celery worker tells what it counts; 0: nowhere",
        "WORKER_METRICS_HOST": "the address that it listens on",
    },
    "ZeroDB": {
        "ZERODB_API_KEY": "the project's key. Without it: embedded in development; in production documents stay in PostgreSQL",
        "ZERODB_PROJECT_ID": "the project",
        "ZERODB_BASE_URL": "where ZeroDB is",
        "ZERODB_BASE_PATH": "the path before each call's own",
        "ZERODB_AUTH_HEADER": "the header that takes the key",
        "ZERODB_COLLECTION_PREFIX": "before the collections' names, where several platforms share a project",
        "ZERODB_FILTER_KEY": "how this ZeroDB spells the filter in queries: filter or filters",
        "ZERODB_CONNECT_TIMEOUT_SECONDS": "how long connecting may take",
        "ZERODB_READ_TIMEOUT_SECONDS": "how long an answer may take",
        "ZERODB_ATTEMPTS": "tries of a call that may be repeated",
        "ZERODB_REQUESTS_PER_HOUR": "requests an hour that the plan allows, all processes together; 0: any number",
    },
    "Content": {
        "CONTENT_MAX_BODY_BYTES": "the longest body of an item",
        "CONTENT_MAX_VERSIONS": "versions kept of an item; the oldest go above it",
        "CONTENT_UPLOAD_BATCH": "documents sent to ZeroDB in one call",
        "CONTENT_UPLOAD_THREADS": "calls at once",
        "CONTENT_CACHE_BYTES": "copies of documents in each process's memory",
        "CONTENT_CACHE_SECONDS": "how long copies stay in Redis",
        "CONTENT_CACHE_MAX_ENTRY_BYTES": "larger texts are kept in neither",
        "CONTENT_SPOOL_MAX_BYTES": "above this, documents that ZeroDB has leave the spool even though the backup lacks them",
        "CONTENT_READ_FALLBACK": "what reads documents that no other tier gives; empty: nothing",
        "CONTENT_READ_FALLBACK_SECONDS": "how long it may take",
        "WEBHOOKS_PER_TENANT": "webhooks of a tenant",
        "WEBHOOK_TIMEOUT_SECONDS": "how long a receiver may take",
        "WEBHOOK_ALLOW_HTTP": "also call addresses without TLS; for development and closed networks",
        "WEBHOOK_ALLOW_PRIVATE": "also call private addresses; for development and closed networks",
        "WEBHOOK_CA_FILE": "a PEM file of the certificate authorities to trust in place of the public ones",
    },
    "Media files": {
        "MEDIA_STORAGE": "`file`, `s3` (needs boto3) or `gcs` (needs google-cloud-storage)",
        "MEDIA_MAX_BYTES": "the largest file",
        "MEDIA_MAX_PIXELS": "images of more pixels are refused",
        "MEDIA_MAX_IMAGE_BYTES": "images of more bytes are refused",
        "MEDIA_URL_SECONDS": "how long signed links are good",
        "MEDIA_INCOMING_DIR": "where files wait while they come in; with `file` on the same disk as `DATA_DIR/media`",
    },
    "Backup": {
        "BIGQUERY_PROJECT_ID": "the project. Without it: embedded in development, off in production",
        "BIGQUERY_SYNC_ENABLED": "whether there is a backup: by default where there is a project",
        "BIGQUERY_DATASET": "the dataset",
        "BIGQUERY_LOCATION": "where it is made",
        "BIGQUERY_SYNC_BATCH_SIZE": "changes in a batch",
        "BIGQUERY_CREDENTIALS_JSON": "a service account's key as JSON; else `GOOGLE_APPLICATION_CREDENTIALS` or the machine's own",
        "BIGQUERY_SCRATCH_DATASET": "where a restore holds its snapshot for its time; else in the dataset itself",
        "BIGQUERY_READ_ONLY": "a process that may read the backup and never change it",
        "BIGQUERY_EMULATOR_HOST": "an emulator in place of Google's service; asked without credentials",
        "BIGQUERY_EMULATOR_GRPC_HOST": "its second address, for gRPC",
        "DR_RPO_TARGET_SECONDS": "how old the oldest change that is not backed up may become before people are told",
        "DR_HISTORY_DAYS": "how long after its purge something can still be brought back",
        "DR_VERIFY_SAMPLE": "documents of a tenant that a shallow verification reads in ZeroDB",
        "DR_DRILL_DATABASE_URL": "where drills make their throw-away databases: a role with CREATEDB; else the platform's own",
        "DR_DRILL_MAX_ITEMS": "larger tenants are not drilled",
        "DR_MEDIA_STORAGE": "copies of media files: `file`, `s3`, `gcs`, or empty for none",
        "DR_MEDIA_ROOT": "their folder with `file`",
        "DR_MEDIA_KEEP_DAYS": "how long a copy stays after its file was deleted for good",
    },
    "Generation": {
        "LOCAL_LLM_BASE_URL": "any OpenAI-compatible server for the provider `local`",
        "LOCAL_LLM_MODEL": "its model; empty: the first that it lists",
        "EMBEDDED_LLM": "`off`: `make up` starts no small model of its own",
        "LLM_PLATFORM_MODELS": "models that tenants may use on the platform's keys, by commas; empty: all",
        "LLM_PRICES": 'USD per million tokens in and out: `{"qwen/qwen-plus": [0.4, 1.2]}`',
        "GENERATE_CONCURRENCY": "single generations at once in a web process; less than `WEB_THREADS`",
        "GENERATE_TIMEOUT_SECONDS": "their deadline",
        "GENERATION_CALL_TIMEOUT_SECONDS": "the longest call of a job",
        "GENERATION_MAX_ATTEMPTS": "tries of an item",
        "GENERATION_MAX_TOKENS": "tokens of an answer where a request says nothing",
        "GENERATION_SHARDS": "workers that share a job: as many as the worker for generation has processes",
        "GENERATION_JOBS_PER_TENANT": "jobs of a tenant at once",
        "GENERATION_UNFINISHED_JOBS_PER_TENANT": "unfinished jobs of a tenant",
        "GENERATION_PAUSE_AFTER_429_SECONDS": "after so long of nothing but refusals a job is paused",
        "GENERATION_RETRY_SECONDS": "the first pause before another try",
        "GENERATION_SLICE_SECONDS": "how long a worker stays with a job",
        "GENERATION_LEASE_SECONDS": "after so long an item of a worker that died is given to another",
    },
    "Accounts and quotas": {
        "ACCESS_TOKEN_SECONDS": "how long an access token is good",
        "REFRESH_TOKEN_SECONDS": "how long a session lasts without use",
        "PASSWORD_RESET_SECONDS": "how long a link for a new password is good",
        "PASSWORD_RESET_URL": "the page that it leads to",
        "EMAIL_TIMEOUT_SECONDS": "how long the mail server may take",
        "UPGRADE_URL": "where mails about storage lead people who want a larger plan",
        "QUOTA_ALERT_TARGETS_PER_TENANT": "Slack, Teams and webhook targets of a tenant",
    },
    "Migration from an older platform": {
        "LEGACY_DATABASE_URL": "its PostgreSQL, which is only read; empty: our own",
        "LEGACY_SCHEMA": "the schema of its tables",
        "LEGACY_FETCH_SECONDS": "how long fetching one old file may take",
    },
    "Compose only": {
        "POSTGRES_PASSWORD": "of the platform's role in the `postgres` service: letters and digits",
        "ENGARDE_VERSION": "the image's tag",
        "MEDIA_CLIENTS": "packages for `MEDIA_STORAGE`, put into the image: `boto3`, `google-cloud-storage`",
        "OBSERVABILITY": "anything: the image gets what `SENTRY_DSN` and `OTEL_EXPORTER_OTLP_ENDPOINT` need",
        "WEBSOCKET_PORT": "the port on this machine of the `websocket` service",
        "WEBSOCKET_WORKERS": "its processes",
        "WORKER_CONCURRENCY": "processes of a worker, those for generation and maintenance aside",
        "REDIS_MAXMEMORY": "memory for the `redis` service",
        "PROMETHEUS_PORT": "the port on this machine of the `prometheus` service",
    },
}
PROVIDERS = {
    "OPENAI": "OpenAI",
    "ANTHROPIC": "Anthropic",
    "GOOGLE": "Google",
    "DEEPSEEK": "DeepSeek",
    "QWEN": "Qwen",
    "META_LLAMA": "Meta's Llama",
    "LOCAL_LLM": "the provider `local`",
}
STORAGE_PARTS = {
    "S3_BUCKET": "the bucket",
    "S3_PREFIX": "before the files' names in it",
    "S3_REGION": "its region",
    "S3_ENDPOINT_URL": "the address of what speaks S3's protocol elsewhere",
    "S3_ADDRESSING_STYLE": "`path` where buckets have no host names of their own",
    "S3_PROFILE": "a profile of the machine's credentials",
    "GCS_BUCKET": "the bucket",
    "GCS_PREFIX": "before the files' names in it",
    "GCS_PROJECT": "its project",
}


@dataclass(frozen=True, slots=True)
class Found:
    """A variable as the code reads it.

    Attributes:
        in_production: its default there.
    """

    variable: Variable
    in_production: str


def meanings() -> dict[str, dict[str, str]]:
    """Return every variable's meaning, by group."""
    groups = {group: dict(members) for group, members in MEANINGS.items()}
    for prefix, name in PROVIDERS.items():
        groups["Generation"] |= {
            f"{prefix}_API_KEY": f"a key for {name}, for tenants that store none",
            f"{prefix}_MODEL": "the model where a request names none",
            f"{prefix}_BASE_URL": f"where {name} is",
        } | {variable: text for variable, text in MEANINGS["Generation"].items() if variable.startswith(prefix)}
    for group, prefix in (("Media files", "MEDIA"), ("Backup", "DR_MEDIA")):
        groups[group] |= {f"{prefix}_{part}": text for part, text in STORAGE_PARTS.items()}
    return groups


def read_by_the_code() -> dict[str, Found]:
    """Return all variables, those for Compose among them."""
    development, production = _settings_read({}), _settings_read(_FOR_PRODUCTION)
    found = {name: Found(each, production[name].default) for name, each in development.items()}
    return found | {each.name: Found(each, each.default) for each in ELSEWHERE + COMPOSE}


_FOR_PRODUCTION = {
    "ENGARDE_ENV": "production",
    "SECRET_KEY": "only-to-read-the-settings",
    "DATABASE_URL": "postgres://nobody@127.0.0.1/none",
    "REDIS_URL": "redis://127.0.0.1:1/0",
}
_TELL = """
import environ, json
environ.Env.read_env = lambda *_, **__: None
from engarde import settings
print(json.dumps([[each.name, each.kind, each.default] for each in settings.env.variables.values()]))"""


def _settings_read(environment: Mapping[str, str]) -> dict[str, Variable]:
    """Return what the settings read, told by a process of its own whose environment has nothing else in it."""
    told = subprocess.run(  # noqa: S603 -- our own interpreter and program
        [sys.executable, "-c", _TELL],
        env={"PATH": os.defpath, **environment},
        cwd=BASE_DIR,
        capture_output=True,
        check=True,
    )
    return {name: Variable(name, kind, default) for name, kind, default in json.loads(told.stdout)}


def table(found: Mapping[str, Found]) -> str:
    """Return the guide's table."""
    lines: list[str] = []
    for group, members in meanings().items():
        lines += [f"### {group}", "", "| variable | default | meaning | secret |", "|---|---|---|---|"]
        lines += [_row(found[name], text) for name, text in members.items() if name in found]
        lines.append("")
    return "\n".join(lines)


def _row(found: Found, text: str) -> str:
    name = found.variable.name
    secret = ["yes"] * (name in SECRETS) + ["`_FILE`"] * (name in FROM_FILES)
    return f"| `{name}` | {_default(found)} | {text} | {', or '.join(secret)} |"


def _default(found: Found) -> str:
    if shown := SHOWN.get(found.variable.name):
        return shown
    usual, in_production = found.variable.default, found.in_production
    here = f"`{usual}`" if usual else "none"
    if found.variable.name in _FOR_PRODUCTION or usual == in_production:
        return here
    return f"{here}; in production {f'`{in_production}`' if in_production else 'none'}"


def problems(found: Mapping[str, Found]) -> Iterator[str]:
    """Yield what is missing or too much: in the meanings, in the guide, in `.env.example`."""
    explained = {name for members in meanings().values() for name in members}
    yield from (f"engarde/variables.py does not say what {name} means." for name in sorted(found.keys() - explained))
    yield from (
        f"engarde/variables.py explains {name}, which nothing reads." for name in sorted(explained - found.keys())
    )
    listed = re.findall(r"^#?([A-Z][A-Z0-9_]+)=", EXAMPLE.read_text(), re.MULTILINE)
    yield from (f".env.example lacks {name}." for name in sorted(found.keys() - set(listed)))
    yield from (f".env.example names {name}, which nothing reads." for name in sorted(set(listed) - found.keys()))
    yield from (f".env.example names {name} twice." for name in sorted({n for n in listed if listed.count(n) > 1}))


def main(arguments: list[str]) -> int:
    """Write the table or, with `--check`, only tell what is wrong."""
    found = read_by_the_code()
    wrong = list(problems(found))
    guide = GUIDE.read_text()
    before, begin, rest = guide.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        wrong.append(f"{GUIDE.name} lacks the markers {BEGIN} and {END}.")
    elif (written := f"{before}{BEGIN}\n\n{table(found)}\n{END}{after}") != guide:
        if arguments == ["--check"]:
            wrong.append(f"docs/guides/{GUIDE.name} is out of date: run python -m engarde.variables")
        else:
            GUIDE.write_text(written)
    sys.stderr.writelines(f"{problem}\n" for problem in wrong)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
