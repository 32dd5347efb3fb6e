"""The tool list is an API that language models read: complete, small, correct and in a fixed order."""

import json
import re
from collections.abc import Callable

import jsonschema

from bus.agent_guide import INSTRUCTIONS
from mcp_gateway.tools import all_tools
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient

GENERAL_TOOLS = [
    "whoami",
    "list_participants",
    "whats_new",
    "post",
    "read_posts",
    "ack",
    "query_events",
    "claim",
    "seed_sequence",
    "latest_claims",
    "list_sequences",
    "lease",
    "release",
    "who_holds",
    "task_create",
    "task_assign",
    "task_start",
    "task_block",
    "task_resolve",
    "task_ship",
    "task_next",
    "list_tasks",
    "wait_for",
    "register",
    "who_is_active",
]
ADMIN_TOOLS = ["admin_provision", "admin_rotate", "admin_revoke", "create_invite"]


def _size(result: dict[str, object]) -> int:
    return len(json.dumps({"tools": result["tools"]}, separators=(",", ":"), ensure_ascii=False).encode())


def test_project_admins_see_the_admin_tools_and_others_do_not(connect: Callable[..., McpClient], team: Team) -> None:
    for modern in (True, False):
        admin = connect(team.alice, modern=modern).request("tools/list").result
        other = connect(team.bob, modern=modern).request("tools/list").result
        assert [tool["name"] for tool in admin["tools"]] == GENERAL_TOOLS + ADMIN_TOOLS
        assert [tool["name"] for tool in other["tools"]] == GENERAL_TOOLS


def test_the_list_stays_small(connect: Callable[..., McpClient], team: Team) -> None:
    assert _size(connect(team.alice).request("tools/list").result) < 16 * 1024
    assert _size(connect(team.bob).request("tools/list").result) < 12 * 1024
    assert len(INSTRUCTIONS.encode()) < 2 * 1024


def test_each_tool_is_described_in_one_or_two_sentences_with_a_valid_schema(
    connect: Callable[..., McpClient], team: Team
) -> None:
    for tool in connect(team.alice).request("tools/list").result["tools"]:
        assert 20 <= len(tool["description"]) <= 300, tool["name"]
        assert "outputSchema" not in tool
        jsonschema.Draft202012Validator.check_schema(tool["inputSchema"])
        # Hooks of clients add an argument that no tool declares.
        assert "additionalProperties" not in tool["inputSchema"]
        for name, schema in tool["inputSchema"]["properties"].items():
            # No argument names a project or an identity: both come from the token.
            assert "project" not in name
            assert "type" in schema


def test_a_search_for_the_words_of_a_name_finds_the_tool() -> None:
    """Clients that load tools by a search (Codex, BM25) look into descriptions, and take a name for a single word."""
    not_words = {"admin", "whoami"}
    for name, tool in all_tools().items():
        described = set(re.findall(r"[a-z]+", tool.description.lower()))
        # "whats" in a search is "what" for a stemmer.
        missing = {word for word in set(name.split("_")) - not_words if not {word, word.removesuffix("s")} & described}
        assert not missing, name


def test_annotations_match_the_effects_of_the_tools(connect: Callable[..., McpClient], team: Team) -> None:
    tools = {tool["name"]: tool for tool in connect(team.alice).request("tools/list").result["tools"]}
    reading = {name for name, tool in tools.items() if tool["annotations"].get("readOnlyHint")}
    assert reading == {
        "whoami",
        "list_participants",
        "read_posts",
        "query_events",
        "latest_claims",
        "list_sequences",
        "who_holds",
        "list_tasks",
        "who_is_active",
    }
    assert {name for name, tool in tools.items() if tool["annotations"]["openWorldHint"] is not False} == set()
    assert {name for name, tool in tools.items() if tool.get("_meta") == {"anthropic/alwaysLoad": True}} == {
        "whats_new",
        "post",
        "read_posts",
        "ack",
        "claim",
        "lease",
        "release",
        "wait_for",
        "register",
    }
    # The protocol's default is true, so other tools have to set it to false.
    destructive = {
        name for name, tool in tools.items() if name not in reading and tool["annotations"].get("destructiveHint", True)
    }
    assert destructive == {"admin_rotate", "admin_revoke"}


def test_the_schemas_list_the_required_arguments() -> None:
    for tool in all_tools().values():
        jsonschema.Draft202012Validator.check_schema(tool.input_schema)
        assert set(tool.input_schema.get("required", [])) == {
            argument.name for argument in tool.arguments if argument.required
        }


def test_the_schemas_list_the_event_types_and_task_statuses_of_the_engine() -> None:
    from bus.rules.enums import EVENT_TYPES, TASK_STATUSES

    tools = all_tools()
    assert tools["query_events"].input_schema["properties"]["type"]["enum"] == list(EVENT_TYPES)
    assert tools["list_tasks"].input_schema["properties"]["status"]["enum"] == list(TASK_STATUSES)
