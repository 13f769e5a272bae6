"""The admin's pages for plans, usage, alerts and reconciliation."""

from quotas.admin import alerts, plans, reconciliations, reservations, usage

__all__ = ["alerts", "plans", "reconciliations", "reservations", "usage"]
