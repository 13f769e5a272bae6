"""How much a tenant may store: plans, exact counters, and what to say when full."""
