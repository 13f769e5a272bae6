"""The archive's questions in BigQuery's SQL. Names of tables come from the settings, values are parameters.

Every query bounds `changed_at`, by which the tables are partitioned.
"""

from dr.archives.bigquery_tables import RECORD_FIELDS

COLUMNS = ", ".join(RECORD_FIELDS)
NARROW = ", ".join(name for name in RECORD_FIELDS if name != "document")
EVER = "9999-12-31T00:00:00+00:00"
# One number to order changes by: epochs stay far below 2^23.
PLACE = "(epoch * 1099511627776 + change_seq)"
ENTITY = "tenant_id, entity_type, entity_id"
MARK = "CONCAT(tenant_id, '|', entity_type, '|', entity_id, '|', CAST(version AS STRING), '|', sha256, '|', facts)"
MEANING = "CONCAT(tenant_id, '|', entity_type, '|', entity_id, '|', CAST(version AS STRING), '|', op, '|', sha256, '|', facts)"
DAY = (
    "IF(entity_type = 'content', "
    'SAFE_CAST(REGEXP_EXTRACT(facts, r\'"version_created_at": ?"([0-9]{4}-[0-9]{2}-[0-9]{2})\') AS DATE), NULL)'
)


def lane(hashed: str, number: int) -> str:
    """Return one of the three parts of a hash that are summed: 40 bits.

    A damaged hash counts as 0: it shows, and does not keep the others from being summed.
    """
    return f"IFNULL(SAFE_CAST(CONCAT('0x', SUBSTR({hashed}, {1 + 10 * number}, 10)) AS INT64), 0)"


def sum_of_lanes(hashed: str, *, of_any_number: bool = False) -> str:
    """Return the three sums, named s1 to s3: INT64, which 8 million rows may overflow, or BIGNUMERIC of any number of rows."""
    as_type = "BIGNUMERIC" if of_any_number else "INT64"
    return ", ".join(f"SUM(CAST({lane(hashed, number)} AS {as_type})) AS s{number + 1}" for number in range(3))


def known(tables: list[str], columns: str, where: str) -> str:
    """Return the records of several tables that a condition selects."""
    parts = [f"SELECT {columns} FROM `{table}` WHERE changed_at <= @as_of AND {where}" for table in tables]  # noqa: S608
    return " UNION ALL ".join(parts)


def in_force(tables: list[str], columns: str, where: str) -> str:
    """Return the records that were in force at @as_of, each with whether it is current and the highest version known.

    The latest record of a version counts; what came before the last purge of its entity does not, nor what a purge or the
    removal of an old version left without facts.
    """
    return f"""
        SELECT * EXCEPT (newest, purged), version = MAX(version) OVER (PARTITION BY {ENTITY}) AS is_current
        FROM (
            SELECT {columns},
                   ROW_NUMBER() OVER (
                       PARTITION BY {ENTITY}, version ORDER BY epoch DESC, change_seq DESC, ingested_at DESC) AS newest,
                   MAX(IF(op = 'P', {PLACE}, -1)) OVER (PARTITION BY {ENTITY}) AS purged,
                   MAX(version) OVER (PARTITION BY {ENTITY}) AS highest
            FROM ({known(tables, columns + ", ingested_at", where)})
        )
        WHERE newest = 1 AND {PLACE} > purged AND op NOT IN ('P', 'T') AND facts != 'null'"""  # noqa: S608 -- see above


def snapshot(scratch: str, tables: list[str], where: str, expires: str) -> str:
    """Return the statement that holds still what was in force; `highest` knows of later versions too."""
    return f"""
        CREATE OR REPLACE TABLE `{scratch}` OPTIONS (expiration_timestamp = TIMESTAMP '{expires}') AS
        SELECT there.* EXCEPT (highest), GREATEST(there.highest, later.highest) AS highest
        FROM ({in_force(tables, COLUMNS, where)}) AS there
        JOIN (
            SELECT tenant_id AS tenant, entity_type AS kind, entity_id AS id, MAX(version) AS highest
            FROM ({" UNION ALL ".join(f"SELECT tenant_id, entity_type, entity_id, version FROM `{table}` WHERE {where}" for table in tables)})
            GROUP BY tenant, kind, id
        ) AS later ON tenant_id = later.tenant AND entity_type = later.kind AND entity_id = later.id"""  # noqa: S608


def sums(tables: list[str], where: str, *, deep: bool) -> str:
    """Return the sums of what is in force by tenant, type and day."""
    damaged = [
        f"TO_HEX(SHA256({MEANING})) != row_hash",
        "(entity_type != 'content' AND TO_HEX(SHA256(facts)) != sha256)",
    ]
    if deep:
        damaged.append("(entity_type = 'content' AND IFNULL(TO_HEX(SHA256(document)), '') != sha256)")
    return f"""
        SELECT tenant_id, entity_type, day, COUNT(*) AS n, {sum_of_lanes("mark", of_any_number=True)}, COUNTIF(is_damaged) AS damaged
        FROM (
            SELECT tenant_id, entity_type, {DAY} AS day, TO_HEX(SHA256({MARK})) AS mark,
                   {" OR ".join(damaged)} AS is_damaged
            FROM ({in_force(tables, COLUMNS if deep else NARROW, where)})
        )
        GROUP BY tenant_id, entity_type, day ORDER BY tenant_id, entity_type, day"""  # noqa: S608 -- see above


def group(tables: list[str], where: str) -> str:
    """Return the records of one such sum."""
    return f"""
        SELECT {COLUMNS} FROM ({in_force(tables, COLUMNS, where)})
        WHERE IFNULL(CAST({DAY} AS STRING), '') = @day ORDER BY entity_id, version"""  # noqa: S608 -- see above


def once(tables: list[str], where: str) -> str:
    """Return each change once, as it arrived last: it may have arrived twice, of a batch that was divided since, or without what was
    purged since. Its number and its transaction name it, as epochs may rise between two tries and databases count anew.
    """
    return f"""
        SELECT batch_id, row_hash FROM ({known(tables, NARROW + ", ingested_at", where)})
        QUALIFY ROW_NUMBER() OVER (
            PARTITION BY change_seq, xid, entity_id ORDER BY ingested_at DESC, batch_id DESC) = 1"""  # noqa: S608


def batch_sums(tables: list[str], log: str) -> str:
    """Return what is there of each batch, and what its manifest and the removals say."""
    return f"""
        SELECT told.batch_id, told.n AS told_n, told.s1 AS told_s1, told.s2 AS told_s2, told.s3 AS told_s3,
               IFNULL(held.n, 0) AS n, IFNULL(held.s1, 0) AS s1, IFNULL(held.s2, 0) AS s2, IFNULL(held.s3, 0) AS s3
        FROM (
            SELECT batch_id, SUM(n) AS n, SUM(s1) AS s1, SUM(s2) AS s2, SUM(s3) AS s3, MIN(sealed_at) AS sealed_at
            FROM (
                SELECT batch_id, `rows` AS n, s1, s2, s3, sealed_at FROM `{log}` WHERE entry != 'done'
                QUALIFY ROW_NUMBER() OVER (PARTITION BY batch_id, entry ORDER BY ingested_at DESC) = 1
            )
            GROUP BY batch_id
        ) AS told
        LEFT JOIN (
            SELECT batch_id, COUNT(*) AS n, {sum_of_lanes("row_hash")} FROM ({once(tables, "changed_at >= @floor")}) GROUP BY batch_id
        ) AS held ON held.batch_id = told.batch_id
        WHERE told.sealed_at >= @since ORDER BY told.batch_id"""  # noqa: S608 -- see above


def needless(table: str) -> str:
    """Return the condition for records that a purge or the removal of an old version made needless before @before.

    The tombstones themselves stay: should an old record arrive once more, it must not come to life.
    """
    same = "gone.tenant_id = kept.tenant_id AND gone.entity_type = kept.entity_type AND gone.entity_id = kept.entity_id"
    later = "gone.epoch * 1099511627776 + gone.change_seq > kept.epoch * 1099511627776 + kept.change_seq"
    return f"""kept.op NOT IN ('P', 'T') AND kept.changed_at <= @as_of AND kept.ingested_at <= @before AND EXISTS (
            SELECT 1 FROM `{table}` AS gone
            WHERE {same} AND {later} AND gone.changed_at < @before
              AND (gone.op = 'P' OR (gone.op = 'T' AND gone.version = kept.version)))"""  # noqa: S608 -- see above


def removal_sums(table: str, condition: str) -> str:
    """Return, for every batch, what a removal is about to take away; each change once."""
    return f"""
        SELECT batch_id, COUNT(*) AS n, {sum_of_lanes("row_hash")} FROM (
            SELECT kept.batch_id, kept.row_hash FROM `{table}` AS kept WHERE {condition}
            QUALIFY ROW_NUMBER() OVER (
                PARTITION BY kept.change_seq, kept.xid, kept.entity_id
                ORDER BY kept.ingested_at DESC, kept.batch_id DESC) = 1
        )
        GROUP BY batch_id"""  # noqa: S608 -- see above


def removal(table: str, condition: str) -> str:
    """Return the statement that takes records away."""
    return f"DELETE FROM `{table}` AS kept WHERE {condition}"  # noqa: S608 -- see above
