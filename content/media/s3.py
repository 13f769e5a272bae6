"""Amazon S3 and what speaks its protocol, through django-storages; needs boto3."""

from typing import IO, Any, cast

from botocore.config import Config
from storages.backends.s3 import S3Storage
from storages.utils import clean_name

PATIENCE = Config(connect_timeout=5, read_timeout=30, retries={"max_attempts": 3, "mode": "standard"})


class S3MediaStorage(S3Storage):  # type: ignore[misc]  # it has no types
    """A bucket. django-storages reads a whole file before it gives a part of it, so parts are asked of boto3."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.client_config: Config = self.client_config.merge(PATIENCE)

    def open_at(self, name: str, start: int) -> tuple[IO[bytes], int]:
        """Return a stream that begins at a byte, and the whole file's size."""
        key = self.bucket.Object(self._normalize_name(clean_name(name)))
        answer = key.get(Range=f"bytes={start}-") if start else key.get()
        return cast("IO[bytes]", answer["Body"]), start + int(answer["ContentLength"])
