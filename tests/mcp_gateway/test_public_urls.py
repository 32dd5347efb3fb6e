"""Client set-up and invites use PUBLIC_URL and MCP_URL, and their tokens work."""

import json

from bus.db import Database
from tests.mcp_gateway.conftest import make_team
from tests.mcp_gateway.mcp_client import McpClient
from tests.mcp_gateway.processes import running_gateways

WEB, MCP = "https://bus.example.org", "https://agents.example.org/mcp"


def test_client_setup_and_invites_use_the_configured_urls(database_url: str) -> None:
    db = Database(database_url, pool_size=1)
    team = make_team(db)
    db.close()
    with running_gateways(database_url, PUBLIC_URL=WEB, MCP_URL=MCP) as (process,):
        alice = McpClient(process.url, team.alice.token)
        issued = alice.call("admin_provision", participant_name="carol", lane="web", kind="human").structured_content
        assert (issued["participant"], issued["kind"], issued["is_admin"]) == ("carol", "human", False)
        setup = issued["setup"]
        assert setup["mcp_url"] == MCP
        assert setup["env"] == {"LLM_BUS_TOKEN": issued["token"]}
        assert MCP in setup["clients"]["claude_code"]
        assert issued["token"] in setup["clients"]["claude_code"]
        assert setup["mcp_json"]["mcpServers"]["llm-bus"]["url"] == MCP
        # mcp_json is meant to be committed and contains no secret.
        assert issued["token"] not in json.dumps(setup["mcp_json"])
        carol = McpClient(process.url, issued["token"])
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

        # The host of MCP_URL is allowed without ALLOWED_HOSTS.
        via_proxy = McpClient(process.url, team.alice.token)
        body = json.dumps(via_proxy.body("tools/list", {})).encode()
        assert via_proxy.send(body, {**via_proxy.headers("tools/list"), "Host": "agents.example.org"}).status == 200
        via_proxy.close()
