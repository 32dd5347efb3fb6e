"""Revocation, rotation, suspension and demotion apply to the first call after the commit, in each process."""

from collections.abc import Callable

import pytest

from bus.db import Database
from bus.tenancy import owners, participations, tokens
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient

_ROUNDS, _EXHAUSTIVE_ROUNDS = 12, 100


def _prime(clients: list[McpClient]) -> None:
    for client in clients:
        for _ in range(7):
            # Often enough for the driver to prepare the statement.
            assert client.call("claim", sequence="warm").status == 200
        assert client.request("tools/list").status == 200


@pytest.fixture(params=[_ROUNDS, pytest.param(_EXHAUSTIVE_ROUNDS, marks=pytest.mark.exhaustive)])
def rounds(request: pytest.FixtureRequest) -> range:
    count: int = request.param
    return range(count)


@pytest.fixture
def clients(connect: Callable[..., McpClient], team: Team) -> list[McpClient]:
    return [connect(team.bob, process=process, modern=modern) for process in (0, 1) for modern in (True, False)]


def test_a_revoked_token_stops_working_at_once(
    clients: list[McpClient], team: Team, gateway_db: Database, rounds: range
) -> None:
    _prime(clients)
    for _ in rounds:
        with gateway_db.transaction() as conn:
            tokens.revoke_all(conn, team.project_id, "bob", actor="test")
        assert [client.call("claim", sequence="x").status for client in clients] == [401] * 4
        assert clients[0].request("tools/list").status == 401
        with gateway_db.transaction() as conn:
            token = tokens.rotate(conn, team.project_id, "bob", actor="test").token
        for client in clients:
            client.token = token
        assert [client.call("whoami").status for client in clients] == [200] * 4


def test_a_rotated_token_is_replaced_at_once(
    clients: list[McpClient], team: Team, gateway_db: Database, rounds: range
) -> None:
    _prime(clients)
    for _ in rounds:
        old = clients[0].token
        with gateway_db.transaction() as conn:
            new = tokens.rotate(conn, team.project_id, "bob", actor="test").token
        assert [client.call("whoami").status for client in clients] == [401] * 4
        for client in clients:
            client.token = new
        assert [client.call("whoami").status for client in clients] == [200] * 4
        assert old != new


def test_a_suspension_and_its_end_take_effect_at_once(
    clients: list[McpClient], team: Team, gateway_db: Database, rounds: range
) -> None:
    _prime(clients)
    for _ in rounds:
        with gateway_db.transaction() as conn:
            owners.suspend(conn, team.owner_id, reason="test", actor="test")
        assert [client.call("claim", sequence="x").status for client in clients] == [403] * 4
        with gateway_db.transaction() as conn:
            owners.lift_suspension(conn, team.owner_id, actor="test")
        assert [client.call("whoami").status for client in clients] == [200] * 4


def test_a_demotion_takes_effect_at_once(
    connect: Callable[..., McpClient], team: Team, gateway_db: Database, rounds: range
) -> None:
    admins = [connect(team.alice, process=process) for process in (0, 1)]
    _prime(admins)
    for _ in rounds:
        with gateway_db.transaction() as conn:
            participations.set_admin(conn, team.project_id, "alice", False, actor="test")
        for admin in admins:
            assert admin.call("admin_revoke", participant_name="bob").error["code"] == "forbidden"
            assert len(admin.request("tools/list").result["tools"]) == 25
        with gateway_db.transaction() as conn:
            participations.set_admin(conn, team.project_id, "alice", True, actor="test")
        for admin in admins:
            assert len(admin.request("tools/list").result["tools"]) == 29


def test_a_removed_participation_stops_working_at_once(
    clients: list[McpClient], team: Team, gateway_db: Database, rounds: range
) -> None:
    _prime(clients)
    for _ in rounds:
        with gateway_db.transaction() as conn:
            participations.remove(conn, team.project_id, "bob", actor="test")
        assert [client.call("whoami").status for client in clients] == [401] * 4
        with gateway_db.transaction() as conn:
            token = participations.join(conn, team.project_id, "bob", actor="test").token
        for client in clients:
            client.token = token
        assert [client.call("whoami").status for client in clients] == [200] * 4


_CALLS_REFUSED_BEFORE_THE_DATABASE: list[tuple[str, dict[str, object]]] = [
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


def test_an_unauthorized_caller_learns_nothing_about_arguments(
    clients: list[McpClient], team: Team, gateway_db: Database
) -> None:
    _prime(clients)
    with gateway_db.connection() as conn:
        conn.raw.execute("UPDATE presence SET last_seen = '2000-01-01' WHERE project_id = %s", (team.project_id,))
    with gateway_db.transaction() as conn:
        owners.suspend(conn, team.owner_id, reason="test", actor="test")
    assert {
        client.call(tool, **arguments).status
        for client in clients
        for tool, arguments in _CALLS_REFUSED_BEFORE_THE_DATABASE
    } == {403}
    with gateway_db.transaction() as conn:
        owners.lift_suspension(conn, team.owner_id, actor="test")
        tokens.revoke_all(conn, team.project_id, "bob", actor="test")
    assert {
        client.call(tool, **arguments).status
        for client in clients
        for tool, arguments in _CALLS_REFUSED_BEFORE_THE_DATABASE
    } == {401}
    for client in clients:
        for content in (b"{", b"[]", b'{"jsonrpc":"2.0","method":"notifications/initialized"}'):
            assert client.send(content, client.headers("tools/list")).status == 401
        assert client.send(b"{}", {**client.headers("tools/list"), "Accept": "text/html"}).status == 401
        assert client.send(b"{}", {**client.headers("tools/list"), "MCP-Protocol-Version": "2099-01-01"}).status == 401


@pytest.mark.parametrize("modern", [True, False], ids=["modern", "legacy"])
def test_a_project_admin_rotates_and_revokes_its_own_tokens(
    connect: Callable[..., McpClient], team: Team, modern: bool
) -> None:
    """The answer arrives and the act stands, although the token of the call ends with it."""
    client = connect(team.alice, modern=modern)
    rotated = client.call("admin_rotate", participant_name="alice").structured_content
    assert client.call("whoami").status == 401
    client.token = rotated["token"]
    revoked = client.call("admin_revoke", participant_name="alice").structured_content
    assert (revoked["participant"], revoked["revoked"]) == ("alice", 1)
    assert client.call("whoami").status == 401
