"""The BigQuery emulator: its pinned environment, and the launcher that makes it behave like the real service."""
