"""Zero-downtime rules for migrations, checked by `make lint`: the release before has to run on the schema after.

Run it by `python -m tests.deployment.migration_rules`; `--record` adds the migrations that are there to the baseline. Those have
landed, and what is wrong with them cannot be mended any more.
"""

import os
import sys
from pathlib import Path

import django

from engarde.embedded import session

BASELINE = Path(__file__).with_name("landed_migrations.txt")
COMMENT = "# Migrations that landed before these rules were checked, or were let in knowingly: a line each, app.name."


def landed() -> set[str]:
    """Return the names in the baseline."""
    return {line for line in BASELINE.read_text().splitlines() if line and not line.startswith("#")}


def faults(known: set[str]) -> int:
    """Look at all migrations but the known ones, tell what is wrong, and return how many are."""
    from django_migration_linter import MigrationLinter

    from engarde.embedded.paths import PROJECT_ROOT

    linter = MigrationLinter(
        str(PROJECT_ROOT),
        analyser_string="postgresql",
        all_warnings_as_errors=True,
        no_cache=True,
        quiet=["ok", "ignore"],
        exclude_migration_tests=["RUNPYTHON_MODEL_VARIABLE_NAME"],
    )
    for migration in _own(linter.migration_loader.disk_migrations):
        if _name(migration) not in known:
            linter.lint_migration(migration)
    return int(linter.nb_erroneous)


def _own(found):
    from django.apps import apps

    from engarde.embedded.paths import PROJECT_ROOT

    ours = {app.label for app in apps.get_app_configs() if Path(app.path).is_relative_to(PROJECT_ROOT / "engarde")}
    ours |= {"quotas", "content", "generation", "dr"}
    return sorted((m for (label, _), m in found.items() if label in ours), key=_name)


def _name(migration) -> str:
    return f"{migration.app_label}.{migration.name}"


def main(arguments: list[str]) -> int:
    """Check, or record."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "engarde.settings")
    with session.for_command(["manage.py", "migrate"], os.environ):
        django.setup()
        if arguments == ["--record"]:
            from django.db import connection
            from django.db.migrations.loader import MigrationLoader

            names = {_name(migration) for migration in _own(MigrationLoader(connection).disk_migrations)}
            BASELINE.write_text("\n".join([COMMENT, *sorted(names | landed())]) + "\n")
            return 0
        wrong = faults(landed())
    if wrong:
        sys.stderr.write("Rules and ways around them: docs/guides/deployment.md#migrations-without-downtime\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
