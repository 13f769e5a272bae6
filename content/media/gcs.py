"""Google Cloud Storage, through django-storages; needs google-cloud-storage."""

from typing import IO, cast

from storages.backends.gcloud import GoogleCloudStorage
from storages.utils import clean_name

READ_AHEAD_BYTES = 1024**2


class GoogleMediaStorage(GoogleCloudStorage):  # type: ignore[misc]  # it has no types
    """A bucket. django-storages reads a whole file before it gives a part of it, so parts are asked of Google's client."""

    def open_at(self, name: str, start: int) -> tuple[IO[bytes], int]:
        """Return a stream that begins at a byte, and the whole file's size."""
        key = self._normalize_name(clean_name(name))
        blob = self.bucket.get_blob(key)
        if blob is None:
            raise FileNotFoundError(key)
        stream = blob.open("rb", chunk_size=READ_AHEAD_BYTES)
        stream.seek(start)
        return cast("IO[bytes]", stream), int(blob.size)
