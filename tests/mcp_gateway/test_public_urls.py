"""PUBLIC_URL and MCP_URL stand in everything that names an address, and the tokens it shows work."""

import json

from bus.db import Database
from tests.mcp_gateway.conftest import make_team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import running_gateways

WEB, MCP = "https://bus.example.org", "https://agents.example.org/mcp"


def test_cards_and_invites_name_the_configured_addresses(database_url: str) -> None:
    db = Database(database_url, pool_size=1)
    team = make_team(db)
    db.close()
    with running_gateways(database_url, PUBLIC_URL=WEB, MCP_URL=MCP) as (process,):
        alice = McpClient(process.url, team.alice.token)
        granted = alice.call("admin_provision", participant_name="carol", lane="web", kind="human").structured_content
        assert (granted["participant"], granted["kind"], granted["is_admin"]) == ("carol", "human", False)
        setup = granted["setup"]
        assert setup["mcp_url"] == MCP
        assert setup["env"] == {"LLM_BUS_TOKEN": granted["token"]}
        assert MCP in setup["clients"]["claude_code"]
        assert granted["token"] in setup["clients"]["claude_code"]
        assert setup["mcp_json"]["mcpServers"]["llm-bus"]["url"] == MCP
        # What is meant to be committed holds no secret.
        assert granted["token"] not in json.dumps(setup["mcp_json"])
        carol = McpClient(process.url, granted["token"])
        assert carol.call("whoami").structured_content["label"] == "carol"

        rotated = alice.call("admin_rotate", participant_name="carol").structured_content
        assert carol.call("whoami").status == 401
        carol.token = rotated["token"]
        assert carol.call("whoami").structured_content["lane"] == "web"
        assert alice.call("admin_provision", participant_name="carol").error["code"] == "conflict"

        invite = alice.call("create_invite", participant_name="dave").structured_content
        assert invite["redeem_url"] == f"{WEB}/join/{invite['code']}"
        assert f"{WEB}/join" in invite["invite_prompt"]
        assert invite["code"] in invite["invite_prompt"]
        alice.close()
        carol.close()

        # The configured host is served, without a setting of its own.
        via_proxy = McpClient(process.url, team.alice.token)
        body = json.dumps(via_proxy.body("tools/list", {})).encode()
        assert via_proxy.send(body, {**via_proxy.headers("tools/list"), "Host": "agents.example.org"}).status == 200
        via_proxy.close()
