"""What Google's libraries raise, in the words of the archive port."""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import grpc
import requests
from google.api_core import exceptions as api
from google.auth.exceptions import GoogleAuthError, TransportError

from dr.archives.base import ArchiveRefused, ArchiveUnavailable, LoadFailed, RecordsRejected

TRANSIENT_REASONS = {"rateLimitExceeded", "quotaExceeded", "backendError", "jobRateLimitExceeded"}
BAD_ROWS = "invalid"
OURS = (ArchiveRefused, ArchiveUnavailable, RecordsRejected)

P = ParamSpec("P")
T = TypeVar("T")


def named_errors(call: Callable[P, T]) -> Callable[P, T]:
    """Turn what Google's libraries raise into the port's errors."""

    @wraps(call)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return call(*args, **kwargs)
        except OURS:
            raise
        except (api.GoogleAPIError, GoogleAuthError, requests.RequestException, grpc.RpcError, OSError) as error:
            raise translate(error) from error

    return wrapper


def translate(error: Exception) -> ArchiveUnavailable | ArchiveRefused | RecordsRejected:
    """Return the port's error for one of Google's.

    A 403 means three things, told apart by its reason: rate limit and quota pass by themselves, access does not.
    """
    cause = getattr(error, "cause", None) if isinstance(error, api.RetryError) else error
    if isinstance(cause, TransportError):
        return ArchiveUnavailable(f"Google's accounts do not answer: {cause}")
    if isinstance(cause, GoogleAuthError):
        return ArchiveRefused(f"no usable Google credentials: {cause}", reason="credentials")
    reason = reason_of(cause)
    if isinstance(cause, api.Forbidden | api.Unauthorized | api.NotFound) and reason not in TRANSIENT_REASONS:
        return ArchiveRefused(f"BigQuery refuses: {cause}", reason=reason or type(cause).__name__)
    if "streaming buffer" in str(cause):
        return ArchiveUnavailable(
            "BigQuery does not remove rows that were written within the last 30 minutes; try again then."
        )
    if isinstance(cause, api.InvalidArgument) and "schema" in str(cause).lower():
        return ArchiveRefused(f"the tables are not as they should be, run setup_bigquery: {cause}", reason="schema")
    if isinstance(cause, api.InvalidArgument):
        return RecordsRejected(f"BigQuery takes some rows not: {cause}")
    return ArchiveUnavailable(f"BigQuery does not answer: {cause or error}")


def reason_of(error: Any) -> str | None:
    """Return the service's own word for an error, such as accessDenied."""
    errors = getattr(error, "errors", None) or []
    first = errors[0] if errors else None
    return first.get("reason") if isinstance(first, dict) else None


def load_failed(error: Exception) -> LoadFailed | RecordsRejected:
    """Return the port's error for a load job that ended badly: for what is in its rows, or for another reason."""
    if reason_of(error) == BAD_ROWS:
        return RecordsRejected(f"BigQuery's load job takes some rows not: {error}")
    return LoadFailed(f"BigQuery's load job failed: {error}")
