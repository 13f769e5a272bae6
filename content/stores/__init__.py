"""Where documents live outside PostgreSQL: the port (`base`) and its ZeroDB adapter (`zerodb`). No Django in here."""
