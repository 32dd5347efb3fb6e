"""Leaks that are planted one at a time, to see that the state machine finds each.

A leak in SQL replaces a text in an installed function; a leak in Python replaces one in the source of a function.
"""

import inspect
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from unittest import mock

from bus.coordination import leases, ledger, long_poll, task_blockers, task_queries
from bus.db import Database
from bus.notifications import outbox
from bus.tenancy import (
    invites,
    memberships,
    participant_authority,
    participant_queries,
    participants,
    participation_queries,
    participations,
    tokens,
)


@dataclass(frozen=True)
class SqlLeak:
    """A text in the body of a SQL function or of several, and its replacement."""

    functions: str | tuple[str, ...]
    text: str
    replacement: str


@dataclass(frozen=True)
class PythonLeak:
    """A text in the source of a function of a module, and its replacement."""

    module: ModuleType
    function: str
    text: str
    replacement: str


LEAKS: dict[str, SqlLeak | PythonLeak] = {
    "an idempotency key without its participation": SqlLeak(
        ("bus_find_result", "bus_store_result"), "BEGIN\n", "BEGIN p_participation := 0;\n"
    ),
    "an idempotency key without its project": SqlLeak(
        ("bus_find_result", "bus_store_result"), "BEGIN\n", "BEGIN p_project := 0; p_participation := 0;\n"
    ),
    "an inbox count over all projects": SqlLeak(
        "bus_unread", "d.project_id = p_project AND d.participation_id = p_participation AND", "p_project > 0 AND"
    ),
    "lane members of all projects": SqlLeak("bus_lane_members", "p.project_id = p_project AND", "p_project > 0 AND"),
    "a digest with the events of all projects": SqlLeak(
        "bus_whats_new", "e.project_id = v_caller.project_id AND e.seq > since", "e.seq > since"
    ),
    "a digest that counts the leases of all projects": SqlLeak(
        "bus_whats_new", "l.project_id = v_caller.project_id AND l.ended_at IS NULL", "l.ended_at IS NULL"
    ),
    "a lease that contends with those of all projects": SqlLeak(
        "bus_lease_candidates", "l.project_id = p_project AND", "p_project > 0 AND"
    ),
    "an ack of a post of another project": SqlLeak(
        "bus_ack_posts", "o.project_id = v_caller.project_id AND o.id = u.requested", "o.id = u.requested"
    ),
    "a participant of any project by its label": SqlLeak(
        "bus_find_participation",
        """AND n.owner_id = CASE
            WHEN p_handle IS NOT NULL THEN (SELECT h.owner_id FROM owner_handle h WHERE h.handle = p_handle)
            WHEN p_caller IS NULL THEN (SELECT pj.owner_id FROM project pj WHERE pj.id = p_project)
            ELSE (SELECT pt.owner_id FROM participation me JOIN participant pt ON pt.id = me.participant_id
                  WHERE me.id = p_caller) END
        UNION ALL
        SELECT n.participant_id, 0
        FROM owner_handle h JOIN participant_name n ON n.owner_id = h.owner_id AND n.label_key = ''
        WHERE p_handle IS NULL AND h.handle = p_label_key
    ) AS named
    JOIN participation p ON p.project_id = p_project AND """,
        ") AS named JOIN participation p ON ",
    ),
    "a sequence without its project": SqlLeak(
        "bus_seed", "s.project_id = v_caller.project_id AND s.name = p_sequence", "s.name = p_sequence"
    ),
    "a token of any participation": SqlLeak(
        "bus_authenticate", "t.id = p_token AND t.participation_id = p_participation AND", "t.id = p_token AND"
    ),
    "a search of the ledger of all projects": PythonLeak(
        ledger, "_build_query", '"e.project_id = %(project)s"', '"e.project_id > 0"'
    ),
    "a release that ends the lease of another project": PythonLeak(
        leases,
        "force_release",
        "WHERE project_id = %s AND id = %s AND ended_at",
        "WHERE project_id > %s - 9 AND id = %s AND ended_at",
    ),
    "blockers of tasks of all projects": PythonLeak(
        task_blockers, "resolve_blocked_by", "WHERE project_id = %(project)s AND on_task_id", "WHERE on_task_id"
    ),
    "a list of the tasks of all projects": PythonLeak(task_queries, "list_tasks", '"t.project_id = %(project)s", ', ""),
    "acks of all projects in a wait": PythonLeak(
        long_poll, "_find_newly_acked", "e.project_id = %(project)s AND e.type", "e.type"
    ),
    "a token revoked by its id alone": PythonLeak(
        tokens, "revoke", "WHERE t.id = %s AND p.project_id = %s", "WHERE t.id = %s AND p.project_id > %s - 99"
    ),
    "an invite revoked by its id alone": PythonLeak(
        invites,
        "revoke",
        "sa.and_(invite.c.id == invite_id, invite.c.project_id == project_id)",
        "invite.c.id == invite_id",
    ),
    "a webhook removed by its id alone": PythonLeak(
        outbox, "remove_webhook", "WHERE id = %s AND owner_id = %s AND", "WHERE id = %s AND owner_id > %s - 99 AND"
    ),
    "participants of any owner": PythonLeak(
        participants, "find_active", "participant.c.owner_id == owner_id", "participant.c.owner_id > 0"
    ),
    "a list of the participants of all projects": PythonLeak(
        participant_queries, "list_participants", "p.project_id = %(project)s AND p.removed_at", "p.removed_at"
    ),
    "a write of a viewer": SqlLeak("bus_authenticate", "p_write AND v_role = 'viewer'", "false"),
    "an admin who was lead": PythonLeak(
        memberships, "set_role", 'is_admin=role == "lead"', 'is_admin=present == "lead" or role == "lead"'
    ),
    "agents of a member who became viewer": PythonLeak(memberships, "set_role", 'if role == "viewer":', "if False:"),
    "agents of a member who left": PythonLeak(
        memberships, "remove", "for participation in (*others, *own):", "for participation in own:"
    ),
    "a role given by one that is too low": PythonLeak(
        memberships, "require_managed_role", "managed not in managed_roles(role)", "role is None"
    ),
    "an act on a participant without authority": PythonLeak(
        participant_authority, "require_authority", "managed not in managed_roles(role)", "managed is None"
    ),
    "a token for an agent of another owner": PythonLeak(
        participation_queries, "get_token_holder", "if host_id is not None and", "if False and"
    ),
    "a label that means an agent of the project's owner": SqlLeak(
        "bus_find_participation", "WHEN p_caller IS NULL THEN", "WHEN true THEN"
    ),
    "work that a participant keeps who left": PythonLeak(
        participations, "end_participation", "give_back_work(conn, project_id, [removed])", "pass"
    ),
    "suggested names of all projects": PythonLeak(
        participants, "unknown_recipient_error", "WHERE p.project_id = %s AND", "WHERE p.project_id > %s - 99 AND"
    ),
}


@contextmanager
def planted(name: str, database: Database) -> Iterator[None]:
    """Plant a leak in a database that is thrown away, or in this process while the context lasts."""
    leak = LEAKS[name]
    if isinstance(leak, PythonLeak):
        with mock.patch.object(leak.module, leak.function, _replace_in_source(leak)):
            yield
        return
    with database.transaction() as conn:
        for (definition,) in conn.fetch_all(
            "SELECT pg_get_functiondef(oid) FROM pg_proc WHERE proname = ANY (%s)",
            ([leak.functions] if isinstance(leak.functions, str) else list(leak.functions),),
        ):
            assert leak.text in definition, f"{leak.functions} has no {leak.text!r}"
            conn.raw.execute(definition.replace(leak.text, leak.replacement).encode())
    yield


def _replace_in_source(leak: PythonLeak) -> Callable[..., Any]:
    source = textwrap.dedent(inspect.getsource(getattr(leak.module, leak.function)))
    assert leak.text in source, f"{leak.function} has no {leak.text!r}"
    scope = dict(vars(leak.module))
    exec(compile(source.replace(leak.text, leak.replacement), leak.function, "exec"), scope)
    replaced: Callable[..., Any] = scope[leak.function]
    return replaced
