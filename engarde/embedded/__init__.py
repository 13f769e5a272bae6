"""The services a fresh machine lacks, as child processes, and the supervisor behind `make up`.

`session` is the door: `needed`, `join` and `for_command`. Nothing here knows Django, and nothing here runs with
`ENGARDE_ENV=production`. `docs/` and `python -m engarde.embedded --help` tell how to use it from a shell.
"""
