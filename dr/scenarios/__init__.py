"""Disasters as code: each scenario makes data of its own, loses it, brings it back by the product's commands, and counts what is missing.

The parent (`running`) prepares a place to play in (`stage`) and starts a child (`child`), whose settings lead to that place
only. In the child, `world` makes the data, a module per kind of disaster plays it, and `book` and `rows` compare.
"""

SCENARIOS = ("zerodb_loss", "postgres_loss", "full_loss", "tenant_deletion", "silent_corruption", "backup_outage")
