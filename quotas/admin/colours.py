"""Colours of levels and states: unfold's labels, and what bars are drawn in."""

LEVELS = {
    "normal": "success",
    "warning": "warning",
    "high": "warning",
    "critical": "danger",
    "exceeded": "danger",
}
BARS = {
    "normal": "#16a34a",
    "warning": "#ca8a04",
    "high": "#ea580c",
    "critical": "#dc2626",
    "exceeded": "#991b1b",
}
DELIVERIES = {"sent": "success", "pending": "info", "held": "info", "failed": "danger", "dropped": "warning"}
