"""The content room's tables."""

from content.models.carriers import Change, SpooledDocument, SpooledRecord
from content.models.items import (
    ChangeType,
    ContentItem,
    ContentType,
    ContentVersion,
    IndexedBrand,
    Label,
    Platform,
    SearchEntry,
    Status,
    Tag,
)
from content.models.legacy import LegacyProblem, LegacyRun
from content.models.media import Blob, FileType, Media, MediaUse, Upload
from content.models.webhooks import Delivery, Event, Webhook

__all__ = [
    "Blob",
    "Change",
    "ChangeType",
    "ContentItem",
    "ContentType",
    "ContentVersion",
    "Delivery",
    "Event",
    "FileType",
    "IndexedBrand",
    "Label",
    "LegacyProblem",
    "LegacyRun",
    "Media",
    "MediaUse",
    "Platform",
    "SearchEntry",
    "SpooledDocument",
    "SpooledRecord",
    "Status",
    "Tag",
    "Upload",
    "Webhook",
]
