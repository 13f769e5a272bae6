"""Webhooks: a tenant's own addresses are told of what happens to its content."""
