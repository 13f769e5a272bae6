"""The content itself: items, versions, the spool, the change log, and the way to the document store."""
