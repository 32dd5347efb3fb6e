"""Transactions that lock a project's clock: refused without an open transaction."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import Any

import pytest

from bus.coordination import escalation, expiry, leases, tasks
from bus.ctx import Ctx
from bus.db import Connection, Database

_CALLER = Ctx(project_id=1, participation_id=1, participant_id=1, owner_id=1, token_id=1)
_CALLS: dict[str, Callable[[Connection], Any]] = {
    "task_create": lambda conn: tasks.create(conn, _CALLER, "x"),
    "task_assign": lambda conn: tasks.assign(conn, _CALLER, 1, "ada"),
    "task_start": lambda conn: tasks.start(conn, _CALLER, 1),
    "task_next": lambda conn: tasks.start_next(conn, _CALLER),
    "offer of a task": lambda conn: tasks.offer_next(conn, _CALLER, 60),
    "task_block": lambda conn: tasks.block(conn, _CALLER, 1, "stuck"),
    "task_resolve": lambda conn: tasks.resolve(conn, _CALLER, 1),
    "task_ship": lambda conn: tasks.ship(conn, _CALLER, 1),
    "forced release": lambda conn: leases.force_release(conn, _CALLER, 1),
    "expiry of leases": lambda conn: expiry.expire_leases(conn, 1),
    "absences": lambda conn: expiry.record_absent_participants(conn, 1),
    "requeue of stalled tasks": lambda conn: expiry.requeue_stalled_tasks(conn, 1),
    "escalation": lambda conn: escalation.escalate_overdue_posts(conn, 1),
}


@pytest.fixture
def autocommit_conn(shared_database_url: str) -> Iterator[Connection]:
    """A connection without a transaction."""
    with closing(Database(shared_database_url, pool_size=1)) as database, database.connection() as connection:
        yield connection


@pytest.mark.parametrize("call", _CALLS.values(), ids=_CALLS)
def test_a_verb_of_several_statements_fails_without_a_transaction(
    autocommit_conn: Connection, call: Callable[[Connection], Any]
) -> None:
    with pytest.raises(AssertionError, match="needs a transaction"):
        call(autocommit_conn)
