"""What pages print behind a bare fence, as it cannot be run beside other pages, done as printed on a stage of its own.

Every test leaves a platform behind that the next one can use.
"""

from collections import Counter
from collections.abc import Iterator
from uuid import UUID

import pytest

from content.legacy import sample_rows
from tests.docs import pages
from tests.docs.stage import Stage, lines_of, stage, value

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

MIGRATION, OPERATIONS, RUNBOOK = "docs/guides/migration.md", "docs/guides/operations.md", "docs/dr/runbook.md"
MIGRATE = "migrate_content_items_to_zerodb"
SHIP = "sync_to_bigquery --until-empty"
STUDIOS = [(sample_rows.id_of(one.name), one.name) for one in sample_rows.SIZED]


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """A platform without web and workers, with an old database to migrate from: 10 items of each of four tenants."""
    with stage(tmp_path_factory.mktemp("stage")) as found:
        found.manage("load_legacy_sample --items 40")
        yield found


def live(platform: Stage) -> Counter[str]:
    """Return how many items each tenant has outside its trash."""
    return Counter(tenant for tenant, *_, is_trashed in platform.items() if not is_trashed)


def test_a_migration_is_rolled_back(platform: Stage) -> None:
    (before, _), (came, name), *_ = STUDIOS
    platform.manage(f"{MIGRATE} --tenant {before} --limit 3")
    platform.manage(SHIP)
    [BEFORE] = platform.run("date -u +%Y-%m-%dT%H:%M:%SZ; sleep 2").split()
    platform.manage(MIGRATE)
    platform.manage(SHIP)
    everything = platform.items()
    assert live(platform) == {tenant: 10 for tenant, _ in STUDIOS}

    rehearsal, restore = lines_of(pages.holding(MIGRATION, "--as-of $BEFORE"))
    platform.run(rehearsal.replace(" ID ", f" {before} "), BEFORE=BEFORE)
    assert platform.items() == everything
    platform.run(restore.replace(" ID ", f" {before} "), BEFORE=BEFORE)
    assert live(platform) == {tenant: 3 if tenant == before else 10 for tenant, _ in STUDIOS}

    rehearsal, erase = lines_of(pages.holding(MIGRATION, "erase_tenant"))
    platform.run(rehearsal.replace(" ID ", f" {came} "))
    assert live(platform)[came] == 10
    platform.run(erase.replace(" ID ", f" {came} ").replace("Its name", name))
    assert live(platform)[came] == 0
    assert not platform.ask("SELECT 1 FROM accounts_tenant WHERE id = %s", came)

    platform.manage(MIGRATE)
    assert live(platform)[came] == 10  # the next run brings it again


def test_a_dump_is_loaded_in_place_of_what_is_there_and_the_backup_adds_the_rest(platform: Stage) -> None:
    platform.manage(MIGRATE)
    platform.manage(SHIP)
    dumped = platform.items()
    assert len(live(platform)) == 4
    platform.run(pages.holding(OPERATIONS, "pg_dump"))
    platform.manage("create_tenant --name Later --email later@example.com --password 'a good password'")
    platform.manage(SHIP)

    load, migrate, restore = lines_of(pages.holding(OPERATIONS, "dropdb"))
    platform.run(load)
    assert platform.items() == dumped
    assert not platform.ask("SELECT 1 FROM accounts_tenant WHERE name = 'Later'")
    assert platform.ask("SELECT count(*) FROM pg_policies") != [(0,)]
    platform.run(migrate)
    platform.run(restore)
    assert platform.items() == dumped
    assert platform.ask("SELECT 1 FROM accounts_tenant WHERE name = 'Later'")


def test_postgresql_comes_back_and_an_account_that_was_made_meanwhile_gives_way(platform: Stage) -> None:
    platform.manage(MIGRATE)
    platform.manage("ensure_staff")
    platform.manage(SHIP)
    lost, [(first_admin,)] = platform.items(), admins(platform)
    platform.run(".venv/bin/python -m engarde.embedded run -- sh -c 'dropdb engarde && createdb engarde'")

    migrate, restore, look = lines_of(pages.holding(RUNBOOK, "--report restore.json"))
    platform.run(migrate)
    # Which the page forbids. One who is in no tenant would give way by itself.
    platform.manage("create_tenant --name Early --email admin@engarde.local --password 'a good password'")
    [(new_admin,)] = admins(platform)
    assert new_admin != first_admin
    said = platform.run(restore, code=1)
    assert f"{first_admin}: not_restored: this user collides with one that is here" in said
    assert (platform.folder / "restore.json").stat().st_size
    assert platform.items() == lost

    find, remove, *rest = lines_of(pages.holding(RUNBOOK, "THE NEW ID"))
    assert str(new_admin) in platform.run(find)
    platform.run(remove.replace("THE NEW ID", str(new_admin)))
    platform.run("\n".join(rest))
    assert admins(platform) == [(first_admin,)]
    assert value(platform.run(look), "would_change") == "0"


def admins(platform: Stage) -> list[tuple[UUID]]:
    return platform.ask("SELECT id FROM accounts_user WHERE email = 'admin@engarde.local'")
