"""The admin's pages for plans, usage, alerts and reconciliation."""

from quotas.admin import alerts, home, plans, reconciliations, reservations, usage

__all__ = ["alerts", "home", "plans", "reconciliations", "reservations", "usage"]
