"""Tenant scope: which rows a transaction may see, decided by PostgreSQL's row-level security.

Every policy compares a row's tenant with the transaction's `engarde.tenant_id`, or asks whether it runs as the
`engarde.system`. Both are set with `set_config(…, true)`: they end with the transaction, so they are safe with pooled
and reused connections. The default is nothing: code outside a scope sees no rows.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

from django.db import connection, transaction
from psycopg import OperationalError
from psycopg.errors import error_from_result
from psycopg.pq import ConnStatus, ExecStatus, TransactionStatus

SET_SCOPE = "SELECT set_config('engarde.tenant_id', '{tenant}', true), set_config('engarde.system', '{system}', true)"


class ScopeError(RuntimeError):
    """Scopes do not nest: the code inside would lose the tenant it was given."""


@contextmanager
def tenant_scope(tenant_id: UUID, *, one_moment: bool = False) -> Iterator[None]:
    """Run one transaction that sees and writes the rows of one tenant.

    Args:
        one_moment: all its statements see the data as it was when it began (REPEATABLE READ); for reads only, as a write
            beside a concurrent one would fail.

    Raises:
        ScopeError: a scope is open already.
        ValueError: not an id.
    """
    with _scope(name=f"tenant {tenant_id}", tenant=str(UUID(str(tenant_id))), system="", one_moment=one_moment):
        yield


@contextmanager
def system_scope(reason: str) -> Iterator[None]:
    """Run one transaction that sees every tenant's rows: for carriers, staff pages and maintenance, knowingly and few.

    Args:
        reason: why all tenants' rows are needed; shown when a scope is opened inside.

    Raises:
        ScopeError: a scope is open already.
    """
    with _scope(name=f"system: {reason}", tenant="", system="on"):
        yield


@contextmanager
def _scope(*, name: str, tenant: str, system: str, one_moment: bool = False) -> Iterator[None]:
    outer = getattr(connection, "engarde_scope", None)
    if outer is not None:
        raise ScopeError(f"scope {name!r} opened inside scope {outer!r}: close that one first")
    # A local setting survives a released savepoint, so a scope inside a larger transaction (as Django's TestCase has)
    # takes its setting back itself; otherwise the transaction's end does, as a rollback always does.
    is_inner = connection.in_atomic_block or not connection.get_autocommit()
    with transaction.atomic(durable=True):
        _set_scope(tenant, system, "ISOLATION LEVEL REPEATABLE READ" if one_moment else "")
        connection.engarde_scope = name  # type: ignore[attr-defined]
        try:
            yield
            if is_inner and not connection.needs_rollback:
                _set_scope("", "")
        finally:
            connection.engarde_scope = None  # type: ignore[attr-defined]


def _set_scope(tenant: str, system: str, isolation: str = "") -> None:
    """Set both settings in the same round trip as BEGIN, which psycopg holds back until the first statement.

    psycopg itself would wait for BEGIN's answer, also in a pipeline (which costs more than it saves where the database
    is near). Both values are the platform's own: the text of a UUID, "on" or nothing.
    """
    connection.ensure_connection()
    pgconn = connection.connection.pgconn
    begin = f"BEGIN {isolation}; " if pgconn.transaction_status == TransactionStatus.IDLE else ""
    with connection.wrap_database_errors:
        result = pgconn.exec_((begin + SET_SCOPE.format(tenant=tenant, system=system)).encode())
        if pgconn.status == ConnStatus.BAD:
            raise OperationalError("the connection to PostgreSQL is lost")  # such an error has no code to tell it by
        if result.status != ExecStatus.TUPLES_OK:
            raise error_from_result(result)
