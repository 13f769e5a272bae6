"""Who may do what: tenants, brands, users, memberships, API keys and sessions."""
