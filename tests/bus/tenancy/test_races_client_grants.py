"""Races for codes and refresh tokens, and between a refresh and what disconnects a client."""

from collections.abc import Callable

import pytest

from bus.db import Connection, Database
from bus.errors import NotFound
from bus.tenancy import client_consent, client_grants, tokens
from bus.tenancy.client_grants import ClientTokens
from bus.tenancy.projects import Project
from tests import factories
from tests.bus.tenancy.test_client_grants import REQUEST, connect, refresh
from tests.concurrency import run_concurrently, run_numbered_concurrently, successes
from tests.factories import Agent


def _exchange(conn: Connection, code: str) -> ClientTokens | None:
    grant = client_grants.lock_by_code(conn, code)
    return None if grant is None else client_grants.issue_tokens(conn, grant)


def _count_live(db: Database, agent: Agent) -> int:
    """The live tokens of a participant that are of clients."""
    with db.connection() as conn:
        (count,) = conn.fetch_one(
            "SELECT count(*) FROM token t WHERE t.participation_id = %s AND t.id <> %s"
            " AND bus_token_is_live(t.revoked_at, t.expires_at)",
            (agent.ctx.participation_id, agent.ctx.token_id),
        )
    return int(count)


def _make_agent(db: Database) -> tuple[Project, Agent]:
    with db.transaction() as conn:
        project = factories.make_project(conn)
        return project, factories.make_agent(conn, project)


def test_of_many_concurrent_exchanges_of_a_code_one_succeeds_and_is_revoked(db: Database) -> None:
    project, agent = _make_agent(db)
    for _ in range(10):
        with db.transaction() as conn:
            code = client_consent.connect_participant(
                conn, project.owner_id, agent.ctx.participation_id, REQUEST, ttl=None, actor="web"
            )
        outcomes = run_numbered_concurrently(db, 4, lambda conn, _: _exchange(conn, code))  # noqa: B023
        assert len(successes(outcomes)) == 4
        assert len([outcome for outcome in outcomes if outcome is not None]) == 1
        assert _count_live(db, agent) == 0


def test_concurrent_uses_of_a_refresh_token_get_the_same_successor(db: Database) -> None:
    project, agent = _make_agent(db)
    for _ in range(10):
        with db.transaction() as conn:
            client = connect(conn, project, agent)
        text = client.tokens.refresh_token
        outcomes = successes(run_numbered_concurrently(db, 4, lambda conn, _: refresh(conn, text)))  # noqa: B023
        assert len({outcome.refresh_token for outcome in outcomes}) == 1
        assert len({outcome.access_token for outcome in outcomes}) == 4
        with db.transaction() as conn:
            assert refresh(conn, outcomes[0].refresh_token) is not None
            client_grants.disconnect(
                conn, project.owner_id, client_grants.list_connected(conn, project.owner_id)[0].id, actor="web"
            )
        assert _count_live(db, agent) == 0


_ENDS: dict[str, Callable[[Connection, Project, Agent], object]] = {
    "disconnected": lambda conn, project, _: client_grants.disconnect(
        conn, project.owner_id, client_grants.list_connected(conn, project.owner_id)[0].id, actor="web"
    ),
    "all tokens revoked": lambda conn, project, agent: tokens.revoke_all(conn, project.id, agent.label, actor="web"),
    "rotated": lambda conn, project, agent: tokens.rotate(conn, project.id, agent.label, actor="web"),
}


@pytest.mark.parametrize("end", _ENDS.values(), ids=list(_ENDS))
def test_a_refresh_beside_a_revocation_leaves_no_live_access_token(
    db: Database, end: Callable[[Connection, Project, Agent], object]
) -> None:
    project, agent = _make_agent(db)
    for _ in range(15):
        with db.transaction() as conn:
            text = connect(conn, project, agent).tokens.refresh_token
        run_concurrently(
            db,
            lambda conn: refresh(conn, text),  # noqa: B023
            lambda conn: end(conn, project, agent),
        )
        with db.connection() as conn:
            live = conn.fetch_all(
                "SELECT t.id FROM token t WHERE t.parent_id IS NOT NULL"
                " AND bus_token_is_live(t.revoked_at, t.expires_at)"
            )
        assert live == []


def test_an_owner_does_not_wait_for_the_project_of_another(db: Database) -> None:
    project, agent = _make_agent(db)
    with db.transaction() as conn:
        stranger = factories.make_project(conn)
        connect(conn, project, agent)
        (client,) = client_grants.list_connected(conn, project.owner_id)
    with db.transaction() as held, db.transaction() as conn:
        held.execute("SELECT bus_lock_clock(%s)", (project.id,))
        conn.execute("SET LOCAL lock_timeout = '200ms'")
        with pytest.raises(NotFound):
            client_grants.disconnect(conn, stranger.owner_id, client.id, actor="x")
