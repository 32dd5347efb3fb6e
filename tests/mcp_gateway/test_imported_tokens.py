"""Agents of the original go on with their tokens through the real gateway."""

from collections.abc import Iterator

import httpx2
import psycopg
import pytest

from bus.db import Database
from bus.imports.original import import_all
from bus.imports.original_source import OriginalSource
from bus.tenancy import projects, tokens
from tests import servers
from tests.bus.imports import original_database
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import GatewayProcess
from tests.mcp_gateway.test_legacy_client import Hook

_EVENTS, _AGENTS = 50, 4


@pytest.fixture(scope="module", autouse=True)
def _imported(gateway_db: Database) -> Iterator[None]:
    with servers.empty_database() as url:
        original_database.create(url, events=_EVENTS, tokens=_AGENTS)
        with psycopg.connect(url) as source:
            import_all(OriginalSource(source), gateway_db.transaction)
        yield


def test_an_agent_goes_on_where_it_was(gateways: list[GatewayProcess]) -> None:
    hook = Hook(gateways[0].url, original_database.token_text(2))
    me = hook.tool("whoami", {})
    assert (me["actor"], me["project"], me["is_admin"]) == ("ada/agent-2", "Apollo", False)
    news = hook.tool("whats_new", {})
    assert news["since_event_id"] == _EVENTS - 5
    assert hook.tool("claim", {"sequence": "adr"})["formatted"] == f"ADR-{_EVENTS // 5 + 1:04}"
    assert hook.tool("release", {"surface": "src/api"})["released"]
    post = hook.tool("read_posts", {"to_me": True, "unacked_only": True})["posts"][0]
    assert hook.tool("ack", {"post_id": post["post_id"]})["post_id"] == post["post_id"]


def test_the_other_form_of_the_protocol_takes_the_token_too(gateways: list[GatewayProcess]) -> None:
    client = McpClient(gateways[1].url, original_database.token_text(1), True)
    assert client.call("whoami").structured_content["is_admin"] is True
    client.close()


def test_other_texts_of_the_same_form_are_refused(gateways: list[GatewayProcess]) -> None:
    for number in (_AGENTS, 99):
        answer = httpx2.post(
            gateways[0].url,
            json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"},
            headers={"Authorization": f"Bearer {original_database.token_text(number)}"},
        )
        assert answer.status_code == 401


def test_a_rotation_ends_the_old_token_at_once(gateways: list[GatewayProcess], gateway_db: Database) -> None:
    client = McpClient(gateways[0].url, original_database.token_text(3))
    assert client.call("whoami").structured_content["actor"] == "ada/agent-3"
    with gateway_db.transaction() as conn:
        project = projects.get_by_name(conn, "ada/Apollo")
        issued = tokens.rotate(conn, project.id, "agent-3", actor="ada")
    assert client.call("whoami").status == 401
    client.token = issued.token
    assert client.call("whoami").structured_content["actor"] == "ada/agent-3"
    client.close()
