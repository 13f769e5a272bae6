"""Django's PostgreSQL backend, with migrations run in a system scope (named in DATABASES as ENGINE)."""
