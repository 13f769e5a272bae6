"""The platform's settings. Every one can be given by the environment; `.env.example` lists them."""

from datetime import timedelta
from pathlib import Path
from typing import Any

from celery.schedules import crontab
from corsheaders.defaults import default_headers
from django.core.exceptions import ImproperlyConfigured
from django.urls import reverse_lazy

from engarde import configuration
from engarde import env as environment
from engarde.common.logs import logging_config

env = environment.load()

BASE_DIR = environment.BASE_DIR
DATA_DIR = Path(env.str("DATA_DIR", str(BASE_DIR / ".data")))
ENGARDE_ENV = env.choice("ENGARDE_ENV", "development", among=("development", "production"))
PRODUCTION = ENGARDE_ENV == "production"

DEVELOPMENT_SECRET_KEY = "insecure-key-for-development-only-never-for-production"  # noqa: S105 -- production refuses it
SECRET_KEY = env.str("SECRET_KEY", DEVELOPMENT_SECRET_KEY)
DEBUG = env.bool("DEBUG", False)
ALLOWED_HOSTS = env.list(
    "ALLOWED_HOSTS", default=[] if PRODUCTION else ["localhost", "127.0.0.1", "[::1]", "testserver"]
)
PUBLIC_URL = env.str("PUBLIC_URL", f"http://127.0.0.1:{env.int('PORT', 8000)}")


ENCRYPTION_KEYS = env.list("ENCRYPTION_KEYS", default=[])  # newest first; SECRET_KEY gives one more, the last
METRICS_TOKEN = env.str("METRICS_TOKEN", "")  # what /metrics asks for; empty: nothing


def _required_in_production(name: str, instead: str) -> None:
    if PRODUCTION and not env.str(name, ""):
        raise ImproperlyConfigured(f"ENGARDE_ENV=production needs {name}: {instead}")


_required_in_production("SECRET_KEY", "set a long random string; it signs tokens and sessions.")
_required_in_production("DATABASE_URL", "no embedded PostgreSQL is started in production.")
_required_in_production("REDIS_URL", "no embedded Valkey is started in production.")
if PRODUCTION and SECRET_KEY == DEVELOPMENT_SECRET_KEY:
    raise ImproperlyConfigured("ENGARDE_ENV=production refuses the development SECRET_KEY.")

# Applications

INSTALLED_APPS = [
    "engarde.common",
    "engarde.accounts",
    "quotas",
    "content",
    "generation",
    "dr",
    "channels",
    "rest_framework",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "corsheaders",
    "unfold",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
]

MIDDLEWARE = [
    "engarde.common.middleware.RequestContextMiddleware",
    "engarde.common.middleware.ChunkedBodyMiddleware",
    "engarde.common.middleware.TrailingSlashMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "engarde.common.middleware.WakeAfterWritesMiddleware",
    "engarde.common.middleware.StaffScopeMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "engarde.common.middleware.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]

ROOT_URLCONF = "engarde.urls"
WSGI_APPLICATION = "engarde.wsgi.application"
ASGI_APPLICATION = "engarde.asgi.application"
APPEND_SLASH = False  # Both spellings of every address are routed, so nothing is redirected.

TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ],
        },
    },
]

WEB_THREADS = env.int("WEB_THREADS", 16)  # a process; calls that generate take at most GENERATE_CONCURRENCY of them

# PostgreSQL: the tier that decides

_database: dict[str, Any] = env.db_url("DATABASE_URL", default="postgres://engarde@127.0.0.1:5432/engarde")
DATABASES = {
    "default": {
        **_database,
        "ENGINE": "engarde.common.postgres",
        "CONN_MAX_AGE": env.int("DATABASE_CONN_MAX_AGE", 600),
        "CONN_HEALTH_CHECKS": True,
        "OPTIONS": {"connect_timeout": 10, **_database.get("OPTIONS", {})},
    }
}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# Redis / Valkey: Celery's broker and the throttles; nothing there is needed to keep a promise

REDIS_URL = env.str("REDIS_URL", "redis://127.0.0.1:6379/0")
REDIS_TIMEOUT_SECONDS = env.float("REDIS_TIMEOUT_SECONDS", 0.05)
THROTTLE_LOGIN = env.str("THROTTLE_LOGIN", "20/min")
THROTTLE_TENANT = env.str("THROTTLE_TENANT", "200/s")
THROTTLE_KEY_PREFIX = env.str("THROTTLE_KEY_PREFIX", "engarde")

CHANNEL_LAYERS = {
    "default": {
        "BACKEND": "channels_redis.pubsub.RedisPubSubChannelLayer",
        "CONFIG": {"hosts": [{"address": REDIS_URL, "socket_connect_timeout": 2}], "prefix": "engarde-ws"},
    }
}

CELERY_BROKER_URL = REDIS_URL
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_TIME_LIMIT = 600
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_TASK_ROUTES = {
    "content.*": {"queue": "documents"},
    "generation.run_shard": {"queue": "generation"},
    **{
        f"dr.{name}": {"queue": "maintenance"}
        for name in ("verify", "drill", "copy_media", "check_media", "remove_purged")
    },
    "dr.*": {"queue": "dr"},  # never behind work that takes minutes
}
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_TRANSPORT_OPTIONS = {
    "socket_timeout": 5,
    "socket_connect_timeout": 2,
    "health_check_interval": 10,
    "visibility_timeout": 3600,
}
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = True


def _sweep(task: str, every: timedelta | crontab) -> dict[str, Any]:
    """Return a beat entry; what no worker takes within a minute is dropped, as the next one does the same."""
    return {"task": task, "schedule": every, "options": {"expires": 60}}


CELERY_BEAT_SCHEDULE = {
    "upload documents that no wake-up reached": _sweep("content.upload_documents", timedelta(seconds=5)),
    "carry records that no wake-up reached": _sweep("content.carry_records", timedelta(seconds=10)),
    "drop finished documents from the spool": _sweep("content.sweep_spool", timedelta(minutes=5)),
    "collect what is left over in ZeroDB": {
        "task": "content.collect_duplicates",
        "schedule": crontab(hour="3", minute="17"),
        "options": {"expires": 3600},
    },
    "back up changes that no wake-up reached": _sweep("dr.sync", timedelta(minutes=1)),
    "look thoroughly after the backup": _sweep("dr.sweep", crontab(minute="*/15")),
    "tell staff when the backup needs them": _sweep("dr.alert", timedelta(minutes=1)),
    "copy media files that no wake-up reached": _sweep("dr.copy_media", timedelta(minutes=1)),
    "look through all media files for copies": {
        "task": "dr.copy_media",
        "schedule": timedelta(minutes=15),
        "kwargs": {"thorough": True},
        "options": {"expires": 600},
    },
    "check old copies of media files": _sweep("dr.check_media", timedelta(minutes=1)),
    "bring a sampled tenant back, as a drill": {
        "task": "dr.drill",
        "schedule": crontab(day_of_week="sunday", hour="5", minute="30"),
        "options": {"expires": 3600},
    },
    "compare all tiers": {
        "task": "dr.verify",
        "schedule": crontab(hour="3", minute="40"),
        "options": {"expires": 3600},
    },
    "compare all tiers, every byte": {
        "task": "dr.verify",
        "schedule": crontab(day_of_week="sunday", hour="1", minute="30"),
        "kwargs": {"deep": True},
        "options": {"expires": 3600},
    },
    "remove from the backup what was purged long ago": {
        "task": "dr.remove_purged",
        "schedule": crontab(hour="5", minute="10"),
        "options": {"expires": 3600},
    },
    "send webhooks that no wake-up reached": _sweep("content.send_webhooks", timedelta(seconds=10)),
    "index content of brands whose language changed": _sweep("content.index_brands", timedelta(minutes=1)),
    "remove what the plans do not keep any longer": _sweep("content.purge_expired", crontab(hour="2", minute="40")),
    "publish scheduled content": _sweep("content.publish_due", timedelta(seconds=20)),
    "send alerts that no wake-up reached": _sweep("quotas.send_alerts", timedelta(seconds=30)),
    "look at thresholds that no write looked at": _sweep("quotas.look_at_thresholds", timedelta(minutes=1)),
    "give back expired reservations": _sweep("quotas.sweep_reservations", timedelta(minutes=1)),
    "compare usage with what is stored": {
        "task": "quotas.reconcile",
        "schedule": crontab(hour="4", minute="10"),
        "options": {"expires": 3600},
    },
    "go on with jobs that no worker has in hand": _sweep("generation.dispatch", timedelta(seconds=5)),
    "send mail that no wake-up reached": _sweep("accounts.send_mail", timedelta(seconds=30)),
    "remove media bytes that nothing needs": _sweep("content.sweep_media", timedelta(hours=1)),
    "drop spent sessions": _sweep("accounts.drop_spent_sessions", timedelta(hours=1)),
}

# ZeroDB: the documents

ZERODB_API_KEY = env.str("ZERODB_API_KEY", "")
ZERODB_PROJECT_ID = env.str("ZERODB_PROJECT_ID", "")
ZERODB_BASE_URL = env.str("ZERODB_BASE_URL", "https://api.ainative.studio")
ZERODB_BASE_PATH = env.str("ZERODB_BASE_PATH", "/api/v1/projects/{project_id}")
ZERODB_AUTH_HEADER = env.str("ZERODB_AUTH_HEADER", "X-API-Key")
ZERODB_COLLECTION_PREFIX = env.str("ZERODB_COLLECTION_PREFIX", "")
ZERODB_FILTER_KEY = env.str("ZERODB_FILTER_KEY", "filter")
ZERODB_REQUESTS_PER_HOUR = env.int("ZERODB_REQUESTS_PER_HOUR", 0)
CONTENT_UPLOAD_BATCH = env.int("CONTENT_UPLOAD_BATCH", 50)
CONTENT_UPLOAD_THREADS = env.int("CONTENT_UPLOAD_THREADS", 16)
CONTENT_STORE = "content.stores.zerodb.ZeroDBStore"
CONTENT_STORE_OPTIONS: dict[str, Any] = {
    "base_url": ZERODB_BASE_URL,
    "api_key": ZERODB_API_KEY,
    "project_id": ZERODB_PROJECT_ID,
    "base_path": ZERODB_BASE_PATH,
    "auth_header": ZERODB_AUTH_HEADER,
    "filter_key": ZERODB_FILTER_KEY,
    "collection_prefix": ZERODB_COLLECTION_PREFIX,
    "connect_timeout": env.float("ZERODB_CONNECT_TIMEOUT_SECONDS", 2.0),
    "read_timeout": env.float("ZERODB_READ_TIMEOUT_SECONDS", 2.5),
    "attempts": env.int("ZERODB_ATTEMPTS", 2),
    "retry_within": 1.5,  # a reader goes to the next tier instead, a carrier comes back later
    "longest_answer": 10.0,  # with this, a call that a carrier begins is over before its lease is
    "pool_size": CONTENT_UPLOAD_THREADS,
}
CONTENT_READ_FALLBACK = env.str("CONTENT_READ_FALLBACK", "dr.fallback.BackupReader", may_be_empty=True)
CONTENT_READ_FALLBACK_SECONDS = env.float("CONTENT_READ_FALLBACK_SECONDS", 5.0)
CONTENT_CACHE_BYTES = env.int("CONTENT_CACHE_BYTES", 32 * 1024**2)
CONTENT_CACHE_SECONDS = env.int("CONTENT_CACHE_SECONDS", 3600)
CONTENT_CACHE_MAX_ENTRY_BYTES = env.int("CONTENT_CACHE_MAX_ENTRY_BYTES", 256 * 1024)
CONTENT_SPOOL_MAX_BYTES = env.int("CONTENT_SPOOL_MAX_BYTES", 1024**3)
CONTENT_MAX_VERSIONS = env.int("CONTENT_MAX_VERSIONS", 200)
if CONTENT_MAX_VERSIONS < 2:
    raise ImproperlyConfigured(
        "CONTENT_MAX_VERSIONS has to be 2 or more: a deleted item's text is in the version before."
    )
CONTENT_MAX_BODY_BYTES = env.int("CONTENT_MAX_BODY_BYTES", 1024**2)
WEBHOOKS_PER_TENANT = env.int("WEBHOOKS_PER_TENANT", 20)
WEBHOOK_TIMEOUT_SECONDS = env.float("WEBHOOK_TIMEOUT_SECONDS", 10)
WEBHOOK_ALLOW_HTTP = env.bool("WEBHOOK_ALLOW_HTTP", False)
WEBHOOK_ALLOW_PRIVATE = env.bool("WEBHOOK_ALLOW_PRIVATE", False)
WEBHOOK_CA_FILE = env.str("WEBHOOK_CA_FILE", "")
LEGACY_DATABASE_URL = env.str("LEGACY_DATABASE_URL", "")  # empty: tables of the same names in our own database
LEGACY_SCHEMA = env.str("LEGACY_SCHEMA", "legacy")
LEGACY_FETCH_SECONDS = env.float("LEGACY_FETCH_SECONDS", 60)
QUOTA_FREEABLE_SOURCE = "content.queries.freeable_bytes"
QUOTA_SUMS_SOURCE = "content.queries.stored_sums"
QUOTA_ALERT_TARGETS_PER_TENANT = env.int("QUOTA_ALERT_TARGETS_PER_TENANT", 10)
UPGRADE_URL = env.str("UPGRADE_URL", "")
REQUEST_MAX_BYTES = env.int("REQUEST_MAX_BYTES", 8 * 1024**2)
DATA_UPLOAD_MAX_MEMORY_SIZE = REQUEST_MAX_BYTES

# Media files

MEDIA_MAX_BYTES = env.int("MEDIA_MAX_BYTES", 2 * 1024**3)
MEDIA_MAX_PIXELS = env.int("MEDIA_MAX_PIXELS", 100 * 10**6)
MEDIA_MAX_IMAGE_BYTES = env.int("MEDIA_MAX_IMAGE_BYTES", 256 * 1024**2)
MEDIA_URL_SECONDS = env.int("MEDIA_URL_SECONDS", 3600)
MEDIA_ROOT = DATA_DIR / "media"
MEDIA_INCOMING_DIR = env.str("MEDIA_INCOMING_DIR", str(MEDIA_ROOT / "incoming"))
MEDIA_STORAGE = env.str("MEDIA_STORAGE", "file")


def _media_storages(prefix: str, folder: Path) -> dict[str, dict[str, Any]]:
    """Return the storages that the settings of a prefix can choose from."""
    return {
        "file": {
            "BACKEND": "content.media.storages.FileStorage",
            "OPTIONS": {
                "location": folder,
                "file_permissions_mode": 0o600,
                "directory_permissions_mode": 0o700,
            },
        },
        "s3": {
            "BACKEND": "content.media.s3.S3MediaStorage",
            "OPTIONS": {
                "bucket_name": env.str(f"{prefix}_S3_BUCKET", ""),
                "location": env.str(f"{prefix}_S3_PREFIX", ""),
                "region_name": env.str(f"{prefix}_S3_REGION", "") or None,
                "endpoint_url": env.str(f"{prefix}_S3_ENDPOINT_URL", "") or None,
                "addressing_style": env.str(f"{prefix}_S3_ADDRESSING_STYLE", "") or None,
                "session_profile": env.str(f"{prefix}_S3_PROFILE", "") or None,
                "default_acl": None,
                "use_threads": False,  # else ten parts of 8 MiB are in memory at once
            },
        },
        "gcs": {
            "BACKEND": "content.media.gcs.GoogleMediaStorage",
            "OPTIONS": {
                "bucket_name": env.str(f"{prefix}_GCS_BUCKET", ""),
                "location": env.str(f"{prefix}_GCS_PREFIX", ""),
                "project_id": env.str(f"{prefix}_GCS_PROJECT", "") or None,
                "default_acl": None,
                "blob_chunk_size": 8 * 1024**2,  # else 100 MiB are in memory at once
            },
        },
    }


MEDIA_STORAGES = _media_storages("MEDIA", MEDIA_ROOT)
if MEDIA_STORAGE not in MEDIA_STORAGES:
    raise ImproperlyConfigured(f"MEDIA_STORAGE is {MEDIA_STORAGE!r}; it can be: {', '.join(MEDIA_STORAGES)}.")
environment.require_client(MEDIA_STORAGE)

# The media files' second storage

DR_MEDIA_STORAGE = env.str("DR_MEDIA_STORAGE", "" if PRODUCTION else "file", may_be_empty=True)
DR_MEDIA_KEEP_DAYS = env.int("DR_MEDIA_KEEP_DAYS", 30)
DR_MEDIA_STORAGES = _media_storages("DR_MEDIA", Path(env.str("DR_MEDIA_ROOT", str(DATA_DIR / "media_backup"))))
if DR_MEDIA_STORAGE and DR_MEDIA_STORAGE not in DR_MEDIA_STORAGES:
    raise ImproperlyConfigured(
        f"DR_MEDIA_STORAGE is {DR_MEDIA_STORAGE!r}; it can be empty or: {', '.join(DR_MEDIA_STORAGES)}."
    )
environment.require_client(DR_MEDIA_STORAGE, "DR_MEDIA_STORAGE")
if DR_MEDIA_STORAGE == MEDIA_STORAGE and all(
    MEDIA_STORAGES[MEDIA_STORAGE]["OPTIONS"].get(part) == DR_MEDIA_STORAGES[MEDIA_STORAGE]["OPTIONS"].get(part)
    for part in ("bucket_name", "location", "endpoint_url")
):
    raise ImproperlyConfigured("DR_MEDIA_STORAGE is the place of MEDIA_STORAGE: a copy has to lie elsewhere.")
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    "media": MEDIA_STORAGES[MEDIA_STORAGE],
}
if DR_MEDIA_STORAGE:
    STORAGES["media_backup"] = DR_MEDIA_STORAGES[DR_MEDIA_STORAGE]

# Generation: keys of the platform's own, where models are reached, and bounds

LLM_BASE_URLS = {
    "openai": env.str("OPENAI_BASE_URL", "https://api.openai.com/v1"),
    "anthropic": env.str("ANTHROPIC_BASE_URL", "https://api.anthropic.com"),
    "google": env.str("GOOGLE_BASE_URL", "https://generativelanguage.googleapis.com/v1beta/openai"),
    "deepseek": env.str("DEEPSEEK_BASE_URL", "https://api.deepseek.com"),
    "qwen": env.str("QWEN_BASE_URL", "https://dashscope-intl.aliyuncs.com/compatible-mode/v1"),
    "meta_llama": env.str("META_LLAMA_BASE_URL", "https://api.llama.com/compat/v1"),
    "local": env.str("LOCAL_LLM_BASE_URL", ""),
}
LLM_PLATFORM_KEYS = {
    "openai": env.str("OPENAI_API_KEY", ""),
    "anthropic": env.str("ANTHROPIC_API_KEY", ""),
    "google": env.str("GOOGLE_API_KEY", ""),
    "deepseek": env.str("DEEPSEEK_API_KEY", ""),
    "qwen": env.str("QWEN_API_KEY", ""),
    "meta_llama": env.str("META_LLAMA_API_KEY", ""),
    "local": env.str("LOCAL_LLM_API_KEY", ""),
}
LLM_DEFAULT_MODELS = {
    "openai": env.str("OPENAI_MODEL", "gpt-4.1-mini"),
    "anthropic": env.str("ANTHROPIC_MODEL", "claude-haiku-4-5"),
    "google": env.str("GOOGLE_MODEL", "gemini-2.5-flash"),
    "deepseek": env.str("DEEPSEEK_MODEL", "deepseek-chat"),
    "qwen": env.str("QWEN_MODEL", "qwen-plus"),
    "meta_llama": env.str("META_LLAMA_MODEL", "Llama-4-Maverick-17B-128E-Instruct-FP8"),
    "local": env.str("LOCAL_LLM_MODEL", ""),  # the first that the server lists
}
LLM_PLATFORM_MODELS = env.list(
    "LLM_PLATFORM_MODELS", default=[]
)  # that tenants may use on the platform's keys; empty: all
LLM_PRICES = environment.json_object(env, "LLM_PRICES")  # {"provider/model": [USD per million in, out]}
GENERATE_CONCURRENCY = env.int("GENERATE_CONCURRENCY", 6)
GENERATE_TIMEOUT_SECONDS = env.float("GENERATE_TIMEOUT_SECONDS", 60)
GENERATION_CALL_TIMEOUT_SECONDS = env.float("GENERATION_CALL_TIMEOUT_SECONDS", 120)
GENERATION_MAX_ATTEMPTS = env.int("GENERATION_MAX_ATTEMPTS", 5)
GENERATION_MAX_TOKENS = env.int("GENERATION_MAX_TOKENS", 2048)
GENERATION_SHARDS = env.int("GENERATION_SHARDS", 2)
GENERATION_SLICE_SECONDS = env.float("GENERATION_SLICE_SECONDS", 60)
GENERATION_LEASE_SECONDS = env.float("GENERATION_LEASE_SECONDS", 30)
GENERATION_JOBS_PER_TENANT = env.int("GENERATION_JOBS_PER_TENANT", 5)
GENERATION_UNFINISHED_JOBS_PER_TENANT = env.int("GENERATION_UNFINISHED_JOBS_PER_TENANT", 100)
GENERATION_PAUSE_AFTER_429_SECONDS = env.float("GENERATION_PAUSE_AFTER_429_SECONDS", 30 * 60)
GENERATION_RETRY_SECONDS = env.float("GENERATION_RETRY_SECONDS", 2)

# BigQuery: the backup

BIGQUERY_PROJECT_ID = env.str("BIGQUERY_PROJECT_ID", "")
BIGQUERY_SYNC_ENABLED = env.bool("BIGQUERY_SYNC_ENABLED", bool(BIGQUERY_PROJECT_ID))
BIGQUERY_DATASET = env.str("BIGQUERY_DATASET", "engarde_dr")
BIGQUERY_LOCATION = env.str("BIGQUERY_LOCATION", "US")
BIGQUERY_SYNC_BATCH_SIZE = env.int("BIGQUERY_SYNC_BATCH_SIZE", 100)
BIGQUERY_CREDENTIALS_JSON = env.str("BIGQUERY_CREDENTIALS_JSON", "")
BIGQUERY_SCRATCH_DATASET = env.str("BIGQUERY_SCRATCH_DATASET", "")
BIGQUERY_READ_ONLY = env.bool("BIGQUERY_READ_ONLY", False)
BIGQUERY_EMULATOR_HOST = env.str("BIGQUERY_EMULATOR_HOST", "")
BIGQUERY_EMULATOR_GRPC_HOST = env.str("BIGQUERY_EMULATOR_GRPC_HOST", "")
DR_RPO_TARGET_SECONDS = env.int("DR_RPO_TARGET_SECONDS", 900)
DR_VERIFY_SAMPLE = env.int(
    "DR_VERIFY_SAMPLE", 1000
)  # documents of a tenant that a shallow verification reads in ZeroDB
DR_HISTORY_DAYS = env.int("DR_HISTORY_DAYS", 35)  # how long after its purge something can still be brought back
DR_DRILL_DATABASE_URL = env.str("DR_DRILL_DATABASE_URL", "")
DR_DRILL_MAX_ITEMS = env.int("DR_DRILL_MAX_ITEMS", 20_000)
ERASERS = ["generation.erasure", "content.erasure", "quotas.erasure", "engarde.accounts.erasure"]
DR_AFTER_RESTORE = {"job": "generation.recovery.settle_jobs"}  # what a room does once rows of a type came back
DR_ARCHIVE = "dr.archives.bigquery.BigQueryArchive"
DR_ARCHIVE_OPTIONS: dict[str, Any] = {
    "project": BIGQUERY_PROJECT_ID,
    "dataset": BIGQUERY_DATASET,
    "location": BIGQUERY_LOCATION,
    "credentials_json": BIGQUERY_CREDENTIALS_JSON,
    "scratch_dataset": BIGQUERY_SCRATCH_DATASET,
    "read_only": BIGQUERY_READ_ONLY,
    "emulator_host": BIGQUERY_EMULATOR_HOST,
    "emulator_grpc_host": BIGQUERY_EMULATOR_GRPC_HOST,
}

# Accounts

AUTH_USER_MODEL = "accounts.User"
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in ("MinimumLengthValidator", "CommonPasswordValidator")
]
ACCESS_TOKEN_SECONDS = env.int("ACCESS_TOKEN_SECONDS", 15 * 60)
REFRESH_TOKEN_SECONDS = env.int("REFRESH_TOKEN_SECONDS", 30 * 24 * 3600)
PASSWORD_RESET_TIMEOUT = env.int("PASSWORD_RESET_SECONDS", 3 * 24 * 3600)
PASSWORD_RESET_URL = env.str("PASSWORD_RESET_URL", f"{PUBLIC_URL}/reset-password?token={{token}}")

vars().update(env.email_url("EMAIL_URL", default=f"filemail:///{DATA_DIR / 'mail'}"))
EMAIL_TIMEOUT = env.int("EMAIL_TIMEOUT_SECONDS", 10)
DEFAULT_FROM_EMAIL = env.str("DEFAULT_FROM_EMAIL", "En Garde <no-reply@engarde.local>")

# The API

REST_FRAMEWORK: dict[str, Any] = {
    "DEFAULT_AUTHENTICATION_CLASSES": ["engarde.accounts.authentication.CredentialsAuthentication"],
    "DEFAULT_PERMISSION_CLASSES": ["engarde.accounts.permissions.HasScope"],
    "DEFAULT_THROTTLE_CLASSES": ["engarde.common.throttles.TenantThrottle"],
    "DEFAULT_PARSER_CLASSES": ["engarde.common.json.StrictJSONParser"],
    "DEFAULT_RENDERER_CLASSES": ["engarde.common.json.JSONRenderer"],
    "DEFAULT_CONTENT_NEGOTIATION_CLASS": "engarde.common.json.AlwaysJSON",
    "DEFAULT_SCHEMA_CLASS": "engarde.common.schema.AutoSchema",
    "EXCEPTION_HANDLER": "engarde.common.exceptions.exception_handler",
    "UNAUTHENTICATED_USER": None,
    "NUM_PROXIES": env.int("TRUSTED_PROXIES", 0),  # how many entries of X-Forwarded-For are ours
}
SPECTACULAR_SETTINGS = {
    "TITLE": "En Garde content storage",
    "DESCRIPTION": "One place for a marketing studio's content: PostgreSQL decides, ZeroDB holds the documents, "
    "BigQuery brings them back after a disaster.",
    "VERSION": "1.0.0",
    "OAS_VERSION": "3.1.0",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": ["rest_framework.permissions.AllowAny"],
    "SERVE_AUTHENTICATION": [],
    "SCHEMA_PATH_PREFIX": "/api",
    "SCHEMA_PATH_PREFIX_TRIM": False,
    "COMPONENT_SPLIT_REQUEST": True,
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "ENUM_NAME_OVERRIDES": {
        "RoleEnum": "engarde.accounts.roles.Role",
        "ContentTypeEnum": "content.models.ContentType",
        "ContentStatusEnum": "content.models.Status",
        "FileTypeEnum": "content.models.FileType",
        "ChangeTypeEnum": "content.models.ChangeType",
        "MemberStatusEnum": ["active", "invited"],
        "JobStatusEnum": "generation.models.JobStatus",
        "JobItemStatusEnum": "generation.models.ItemStatus",
        "LLMKeyStatusEnum": "generation.models.KeyStatus",
        "ProviderEnum": "generation.models.Provider",
        "BackupStatusEnum": "dr.states.BackupStatus",
        "FindingKindEnum": "dr.models.Finding.Kind",
        "AlertTargetKindEnum": "quotas.models.AlertTarget.Kind",
    },
}
# The admin

LOGIN_REDIRECT_URL = "/admin/"  # for a login that was not asked for by a page


def _page(title: str, icon: str, model: str) -> dict[str, Any]:
    """Return a link of the admin's sidebar; icons are Material Symbols."""
    return {"title": title, "icon": icon, "link": reverse_lazy(f"admin:{model}_changelist")}


UNFOLD: dict[str, Any] = {
    "SITE_TITLE": "En Garde content storage",
    "SITE_HEADER": "En Garde",
    "SITE_SUBHEADER": "Content storage",
    "SITE_SYMBOL": "shield",
    "SITE_URL": "/api/docs",
    "SHOW_HISTORY": True,
    "DASHBOARD_CALLBACK": "engarde.common.admin_home.dashboard",
    "SIDEBAR": {
        "show_search": True,
        "navigation": [
            {
                "title": "Tenants",
                "items": [
                    _page("Tenants", "apartment", "accounts_tenant"),
                    _page("People", "group", "accounts_user"),
                    _page("API keys", "key", "accounts_apikey"),
                ],
            },
            {
                "title": "Plans and usage",
                "items": [
                    _page("Usage", "database", "quotas_quotausage"),
                    _page("Plans", "sell", "quotas_plan"),
                    _page("Alerts", "notifications", "quotas_alert"),
                    _page("Alert targets", "campaign", "quotas_alerttarget"),
                    _page("Reservations", "hourglass_top", "quotas_reservation"),
                    _page("Reconciliations", "balance", "quotas_reconciliation"),
                ],
            },
            {
                "title": "Generation",
                "items": [
                    _page("Jobs", "auto_awesome", "generation_job"),
                    _page("Provider keys", "vpn_key", "generation_llmkey"),
                    _page("Key events", "history", "generation_llmkeyevent"),
                ],
            },
            {
                "title": "Backup",
                "items": [
                    _page("Backup", "backup", "dr_syncstate"),
                    _page("Runs", "history", "dr_run"),
                    _page("Batches", "inventory_2", "dr_batch"),
                    _page("Findings", "report", "dr_finding"),
                    _page("Verifications", "fact_check", "dr_verification"),
                    _page("Restores", "settings_backup_restore", "dr_restore"),
                    _page("Drills", "emergency", "dr_drill"),
                    _page("Erasures", "delete_forever", "dr_erasure"),
                ],
            },
            {
                "title": "Content",
                "items": [
                    _page("Webhooks", "webhook", "content_webhook"),
                    _page("Deliveries", "outgoing_mail", "content_delivery"),
                ],
            },
        ],
    },
}
ADMIN_HOME_PANELS = ["dr.admin.home", "quotas.admin.home.panel", "generation.admin.home", "content.admin.home"]
CORS_ALLOWED_ORIGINS = env.list("CORS_ALLOWED_ORIGINS", default=[])
CORS_ALLOW_HEADERS = [
    *default_headers,
    "x-api-key",
    "x-tenant-id",
    "x-request-id",
    "idempotency-key",
    "if-match",
    "if-none-match",
    "if-range",
    "range",
]
CORS_EXPOSE_HEADERS = [
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Idempotency-Replayed",
    "Location",
    "Retry-After",
    "X-Request-ID",
    "X-Quota-Used",
    "X-Quota-Limit",
    "X-Quota-Remaining",
    "X-Quota-Percent",
    "X-Quota-Warning",
    "RateLimit-Policy",
]

# Pages, time, logs, transport security

STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles" if PRODUCTION else None  # elsewhere WhiteNoise finds the files itself
WHITENOISE_USE_FINDERS = not PRODUCTION
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
LOGGING_CONFIG = None
LOG_LEVEL = env.choice("LOG_LEVEL", "INFO", among=("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"))
logging_config(level=LOG_LEVEL, as_json=env.bool("LOG_JSON", True))

SENTRY_DSN = env.str("SENTRY_DSN", "")
SENTRY_TRACES_SAMPLE_RATE = env.float("SENTRY_TRACES_SAMPLE_RATE", 0)
OTEL_EXPORTER_OTLP_ENDPOINT = env.str("OTEL_EXPORTER_OTLP_ENDPOINT", "")
WORKER_METRICS_PORT = env.int("WORKER_METRICS_PORT", 0)  # 0: none
WORKER_METRICS_HOST = env.str("WORKER_METRICS_HOST", "127.0.0.1")

X_FRAME_OPTIONS = "DENY"
SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", PRODUCTION)
SECURE_REDIRECT_EXEMPT = [r"^health", r"^metrics"]  # probes ask inside the network, by HTTP
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if env.bool("BEHIND_TLS_PROXY", PRODUCTION) else None
SECURE_HSTS_SECONDS = env.int("SECURE_HSTS_SECONDS", 365 * 24 * 3600 if PRODUCTION else 0)
SECURE_HSTS_INCLUDE_SUBDOMAINS = PRODUCTION
SECURE_HSTS_PRELOAD = PRODUCTION
SESSION_COOKIE_SECURE = PRODUCTION
CSRF_COOKIE_SECURE = PRODUCTION
CSRF_FAILURE_VIEW = "engarde.common.problems.csrf_failure"
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

if _problems := configuration.problems(vars()):
    raise ImproperlyConfigured("\n".join(_problems))
