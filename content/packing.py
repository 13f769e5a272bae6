"""Documents as they are kept in the spool and in Redis: zstd of their UTF-8 text."""

import zstandard

MAX_DOCUMENT_BYTES = 64 * 1024**2  # above anything the limits on input allow; bounds decompression


class DamagedDocument(Exception):
    """What is kept is not a document any more."""


def compress(text: str) -> bytes:
    """Return a document's text in its kept form."""
    return zstandard.compress(text.encode(), level=3)


def decompress(kept: bytes) -> str:
    """Return a document's text from its kept form.

    Raises:
        DamagedDocument: it cannot be unpacked, or would become larger than any document is.
    """
    try:
        # The library heeds `max_output_size` only where the frame does not announce a size of its own.
        if zstandard.frame_content_size(kept) > MAX_DOCUMENT_BYTES:
            raise DamagedDocument("a kept document cannot be unpacked: it announces too many bytes")
        return zstandard.decompress(kept, max_output_size=MAX_DOCUMENT_BYTES).decode()
    except (zstandard.ZstdError, UnicodeDecodeError) as error:
        raise DamagedDocument(f"a kept document cannot be unpacked: {error}") from error
