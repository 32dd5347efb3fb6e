"""The check of the caller. Every call of a tool makes it in the database, so that a revoked token stops at once.

The checks are SQL: bus/tenancy/sql/token_validity.sql and bus/tenancy/sql/authentication.sql.
"""

from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from bus import scopes
from bus.ctx import Ctx
from bus.db import Connection, Row, row_builder
from bus.errors import BusError
from bus.scopes import Scope

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CallerStatus:
    """The caller's name, whether it may act as project-admin now, and its unread posts (capped at 100)."""

    actor: str
    is_admin: bool
    unread: int


def authenticate(conn: Connection, ctx: Ctx) -> CallerStatus:
    """Check the caller where no tool call does it.

    Raises:
        NotAuthenticated: the token, the participation or the participant is no longer valid.
        OwnerSuspended: the token is valid, but its owner is suspended.
    """
    return conn.fetch_one_as(
        CallerStatus,
        "SELECT c.actor, c.is_admin, bus_unread(c.project_id, %(me)s) AS unread"
        " FROM bus_authenticate(%(me)s, %(token)s, false) c",
        {"me": ctx.participation_id, "token": ctx.token_id},
    )


def require_scope(conn: Connection, ctx: Ctx, scope: Scope) -> None:
    """Check the caller, and that its token has a scope.

    Raises:
        NotAuthenticated, OwnerSuspended: as for `authenticate`.
        InsufficientScope: the token has a narrower scope.
        BusError: `forbidden` when its participation may not write either.
    """
    conn.execute("SELECT bus_require_scope(%s, %s, %s)", (ctx.participation_id, ctx.token_id, scope))


def find_offered_scope(conn: Connection, ctx: Ctx) -> Scope:
    """Check the caller, and return the scope of all that it may do, or may do once its client was granted more."""
    (is_project_admin,) = conn.fetch_one(
        # The second without a token, whose scope would make a project-admin none.
        "SELECT p.is_admin FROM bus_authenticate(%(me)s, %(token)s, false) c, bus_authenticate(%(me)s, NULL, false) p",
        {"me": ctx.participation_id, "token": ctx.token_id},
    )
    of_participation: Scope = "admin" if is_project_admin else "write"
    return of_participation if ctx.can_step_up else scopes.narrower(of_participation, ctx.scope)


def count_unread(conn: Connection, ctx: Ctx) -> int:
    """Count the caller's unread posts, up to 100, after a call that has authenticated it.

    It does not ask whether the caller still has access: its own call may have ended that.
    """
    (unread,) = conn.fetch_one("SELECT bus_unread(%s, %s)", (ctx.project_id, ctx.participation_id))
    return int(unread)


def authorize_admin(conn: Connection, ctx: Ctx) -> str:
    """Check that the caller is project-admin and lock the project clock; the first statement of an administrative act.

    Returns:
        The caller's qualified name.
    Raises:
        BusError: `forbidden` unless the caller is project-admin, or when the project is archived.
        InsufficientScope: it is, and its token does not allow that.
    Locks: the project clock.
    """
    caller = (ctx.participation_id, ctx.token_id)
    conn.execute("SELECT FROM bus_authenticate_and_lock(%s, %s)", caller)
    # The caller may have lost its rights while this transaction waited for the clock, so they are read under it.
    actor, is_admin = conn.fetch_one("SELECT actor, is_admin FROM bus_authenticate(%s, %s, true)", caller)
    if not is_admin:
        refuse_as_not_admin(conn, ctx)
    return str(actor)


def refuse_as_not_admin(conn: Connection, ctx: Ctx) -> NoReturn:
    """Refuse an administrative act of a caller that may not act as project-admin.

    Raises:
        InsufficientScope: it is project-admin, and its token does not allow that.
        BusError: `forbidden`.
    """
    require_scope(conn, ctx, "admin")
    raise BusError("forbidden", "Only a project-admin may do that; ask the owner or an admin of the project.")


def fetch_all_as_caller(
    conn: Connection, ctx: Ctx, cls: type[T], query: str, order_by: str, **params: Any
) -> tuple[int, list[T]]:
    """Authenticate the caller, count its unread posts and run `query`, in one statement.

    Args:
        cls: a dataclass; columns of the query are matched to its fields by name.
        query: a SELECT over named parameters, which always include `project` and `me`. Its first column is never
            null.
        order_by: ORDER BY of the result, over `r`, the query's alias.
    Returns:
        How many unread posts the caller has (capped at 100), and the rows.
    """
    names, rows = conn.fetch_all_with_names(_as_caller(query, order_by), _caller_params(ctx, params))
    # The first column is the caller's unread count; the rest is null where the query has no row.
    unread = int(rows[0][0])
    if len(rows) == 1 and rows[0][1] is None:
        return unread, []
    build = row_builder(cls, names[1:])
    return unread, [build(row[1:]) for row in rows]


def fetch_as_caller(conn: Connection, ctx: Ctx, query: str, order_by: str, **params: Any) -> tuple[int, list[Row]]:
    """As `fetch_all_as_caller`, with the rows as tuples."""
    rows = conn.fetch_all(_as_caller(query, order_by), _caller_params(ctx, params))
    return int(rows[0][0]), [row[1:] for row in rows if row[1] is not None]


def _as_caller(query: str, order_by: str) -> str:
    return (
        "WITH caller AS MATERIALIZED ("
        " SELECT bus_unread(c.project_id, %(me)s) AS unread FROM bus_authenticate(%(me)s, %(token)s, false) c) "
        "SELECT caller.unread AS caller_unread, r.* FROM caller"
        f" LEFT JOIN LATERAL ({query}) AS r ON true ORDER BY {order_by}"
    )


def _caller_params(ctx: Ctx, params: dict[str, Any]) -> dict[str, Any]:
    return {"me": ctx.participation_id, "token": ctx.token_id, "project": ctx.project_id, **params}
