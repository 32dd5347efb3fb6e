"""Revoke, rotate, suspend, demote: the first call that starts after the commit feels it, in each process."""

from collections.abc import Callable

import pytest

from bus.db import Database
from bus.tenancy import owners, participations, tokens
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient

_ROUNDS = 100


def _prime(wires: list[McpClient]) -> None:
    for wire in wires:
        for _ in range(7):
            # Past the point where the driver prepares a statement.
            assert wire.call("claim", sequence="warm").status == 200
        assert wire.request("tools/list").status == 200


@pytest.fixture
def wires(connect: Callable[..., McpClient], team: Team) -> list[McpClient]:
    return [connect(team.bob, process=process, modern=modern) for process in (0, 1) for modern in (True, False)]


def test_a_revoked_token_stops_working_at_once(wires: list[McpClient], team: Team, gateway_db: Database) -> None:
    _prime(wires)
    for _ in range(_ROUNDS):
        with gateway_db.transaction() as conn:
            tokens.revoke_all(conn, team.project_id, "bob", actor="test")
        assert [wire.call("claim", sequence="x").status for wire in wires] == [401] * 4
        assert wires[0].request("tools/list").status == 401
        with gateway_db.transaction() as conn:
            token = tokens.rotate(conn, team.project_id, "bob", actor="test").token
        for wire in wires:
            wire.token = token
        assert [wire.call("whoami").status for wire in wires] == [200] * 4


def test_a_rotated_token_is_replaced_at_once(wires: list[McpClient], team: Team, gateway_db: Database) -> None:
    _prime(wires)
    for _ in range(_ROUNDS):
        old = wires[0].token
        with gateway_db.transaction() as conn:
            new = tokens.rotate(conn, team.project_id, "bob", actor="test").token
        assert [wire.call("whoami").status for wire in wires] == [401] * 4
        for wire in wires:
            wire.token = new
        assert [wire.call("whoami").status for wire in wires] == [200] * 4
        assert old != new


def test_a_suspension_and_its_end_are_felt_at_once(wires: list[McpClient], team: Team, gateway_db: Database) -> None:
    _prime(wires)
    for _ in range(_ROUNDS):
        with gateway_db.transaction() as conn:
            owners.suspend(conn, team.owner_id, reason="test", actor="test")
        assert [wire.call("claim", sequence="x").status for wire in wires] == [403] * 4
        with gateway_db.transaction() as conn:
            owners.lift_suspension(conn, team.owner_id, actor="test")
        assert [wire.call("whoami").status for wire in wires] == [200] * 4


def test_a_demotion_is_felt_at_once(connect: Callable[..., McpClient], team: Team, gateway_db: Database) -> None:
    admins = [connect(team.alice, process=process) for process in (0, 1)]
    _prime(admins)
    for _ in range(_ROUNDS):
        with gateway_db.transaction() as conn:
            participations.set_admin(conn, team.project_id, "alice", False, actor="test")
        for admin in admins:
            assert admin.call("admin_revoke", participant_name="bob").error["code"] == "forbidden"
            assert len(admin.request("tools/list").result["tools"]) == 25
        with gateway_db.transaction() as conn:
            participations.set_admin(conn, team.project_id, "alice", True, actor="test")
        for admin in admins:
            assert len(admin.request("tools/list").result["tools"]) == 29


def test_a_removed_grant_is_felt_at_once(wires: list[McpClient], team: Team, gateway_db: Database) -> None:
    _prime(wires)
    for _ in range(_ROUNDS):
        with gateway_db.transaction() as conn:
            participations.remove(conn, team.project_id, "bob", actor="test")
        assert [wire.call("whoami").status for wire in wires] == [401] * 4
        with gateway_db.transaction() as conn:
            token = participations.join(conn, team.project_id, "bob", actor="test").token
        for wire in wires:
            wire.token = token
        assert [wire.call("whoami").status for wire in wires] == [200] * 4


_REFUSED_BEFORE_THE_DATABASE: list[tuple[str, dict[str, object]]] = [
    ("ack", {}),
    ("post", {"body": "x"}),
    ("lease", {"surface": "../x"}),
    ("claim", {"sequence": "adr", "note": "\u0007"}),
    ("claim", {"sequence": "NO"}),
    ("query_events", {"since": "zz"}),
    ("register", {"lane": " a"}),
    ("release", {"surface": "/"}),
    ("task_create", {"title": "a\u0007"}),
    ("task_next", {"lane": " "}),
    ("read_posts", {"to_lane": " x"}),
    ("no_such_tool", {}),
]


def test_who_may_not_call_is_told_nothing_about_the_arguments_either(
    wires: list[McpClient], team: Team, gateway_db: Database
) -> None:
    _prime(wires)
    with gateway_db.connection() as conn:
        conn.raw.execute("UPDATE presence SET last_seen = '2000-01-01' WHERE project_id = %s", (team.project_id,))
    with gateway_db.transaction() as conn:
        owners.suspend(conn, team.owner_id, reason="test", actor="test")
    assert {wire.call(tool, **given).status for wire in wires for tool, given in _REFUSED_BEFORE_THE_DATABASE} == {403}
    with gateway_db.transaction() as conn:
        owners.lift_suspension(conn, team.owner_id, actor="test")
        tokens.revoke_all(conn, team.project_id, "bob", actor="test")
    assert {wire.call(tool, **given).status for wire in wires for tool, given in _REFUSED_BEFORE_THE_DATABASE} == {401}
    for wire in wires:
        for content in (b"{", b"[]", b'{"jsonrpc":"2.0","method":"notifications/initialized"}'):
            assert wire.send(content, wire.headers("tools/list")).status == 401
        assert wire.send(b"{}", {**wire.headers("tools/list"), "Accept": "text/html"}).status == 401
        assert wire.send(b"{}", {**wire.headers("tools/list"), "MCP-Protocol-Version": "2099-01-01"}).status == 401
