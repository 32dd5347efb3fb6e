"""The plugin of OpenCode: what it shows the model, that it fails open, and how it is installed and removed."""

import json
import shutil
import textwrap
from pathlib import Path
from typing import Any

import pytest

from bus import agent_guide
from kit import exit_codes
from kit.client_files import RARE_TOOLS
from tests.kit.git_repo import GitRepo
from tests.kit.workplace import Workplace
from tests.mcp_gateway.conftest import Team
from tests.mcp_gateway.mcp_client import McpClient
from tests.node import find_or_install_node

PLUGIN = ".opencode/plugin/llm-bus.js"
# Calls the hooks of the plugin as OpenCode does, and prints what it added. The prompts go into a list.
SESSION = """
import { LLMBus } from "./plugin.mjs"
const prompts = []
const client = { session: { prompt: async (request) => prompts.push(request) } }
const hooks = await LLMBus({ client, directory: process.argv[2] })
const session = { sessionID: "ses_1", agent: "plan", model: { providerID: "p", modelID: "m" } }
const user = () => [{ id: "prt_1", messageID: "msg_1", sessionID: "ses_1", type: "text", text: "Go." }]
const edit = async (filePath) => {
  const call = { tool: "edit", sessionID: "ses_1", callID: "c" }
  const result = { title: "", output: "Edited.", metadata: {} }
  try {
    await hooks["tool.execute.before"](call, { args: { filePath } })
  } catch (error) {
    return `refused: ${error.message}`
  }
  await hooks["tool.execute.after"]({ ...call, args: { filePath } }, result)
  return result.output
}
const created = { type: "session.created", properties: { info: { id: "ses_sub", parentID: "ses_1" } } }
await hooks.event({ event: created })
const [first, second, subagent] = [user(), user(), user()]
await hooks["chat.message"]({ ...session, sessionID: "ses_sub" }, { message: {}, parts: subagent })
await hooks["chat.message"](session, { message: {}, parts: first })
await hooks["chat.message"](session, { message: {}, parts: second })
const edits = [await edit("src/a.py"), await edit("src/strict/a.py"), await edit("README.md")]
await hooks["experimental.text.complete"]({ sessionID: "ses_sub", messageID: "m", partID: "p" }, { text: "" })
await hooks["experimental.text.complete"]({ sessionID: "ses_1", messageID: "m", partID: "p" }, { text: "" })
await hooks.event({ event: { type: "session.idle", properties: { sessionID: "ses_1" } } })
await hooks.event({ event: { type: "session.idle", properties: { sessionID: "ses_1" } } })
const system = []
await hooks["experimental.chat.system.transform"]({ sessionID: "ses_1" }, { system })
const prompt = JSON.parse(process.env.PROMPT ?? "[]")
await hooks["experimental.chat.system.transform"]({ sessionID: "ses_sub" }, { system: prompt })
await hooks["experimental.chat.system.transform"]({ sessionID: "ses_sub" }, { system })
const named = []
for (const sessionID of ["ses_1", "ses_sub"]) {
  const args = { limit: 5 }
  await hooks["tool.execute.before"]({ tool: "llm-bus_whats_new", sessionID, callID: "c" }, { args })
  named.push(args._session)
}
console.log(JSON.stringify({ prompt, first, second, subagent, system, named, edits, prompts }))
"""


def run_session(
    repo: GitRepo, folder: Path, script: str = SESSION, work_tree: Path | None = None, **env: str
) -> dict[str, Any]:
    """Run a script with the installed plugin under Node."""
    shutil.copy(repo.root / PLUGIN, folder / "plugin.mjs")
    (folder / "session.mjs").write_text(script)
    node = shutil.which("node", path=find_or_install_node().path)
    assert node is not None
    done = repo.run(node, str(folder / "session.mjs"), str(work_tree or repo.root), cwd=None, **env)
    assert done.returncode == 0, done
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.fixture
def connected_opencode(connected: GitRepo, team: Team) -> GitRepo:
    endpoint = json.loads((connected.root / "llm-bus.config.json").read_text())["endpoint"]
    connected.install(endpoint, "--client", "opencode", "--no-seed")
    connected.update_config(leases={"src/strict/**": "strict"})
    return connected


def test_a_session_is_greeted_warned_and_reminded(
    connected_opencode: GitRepo, bob: McpClient, team: Team, tmp_path: Path
) -> None:
    bob.call("lease", surface="src")
    bob.call("post", body="hello", to_actor="alice")
    seen = run_session(connected_opencode, tmp_path)
    # One greeting for a session, none for a subagent, and no reminder of what the greeting showed.
    (greeting,) = seen["system"]
    assert f"you are {team.alice.actor}" in greeting
    assert [len(seen[name]) for name in ("first", "second", "subagent")] == [1, 1, 1]
    assert seen["prompts"] == []
    # All sessions share a connection, so each call says which one it is of.
    assert seen["named"] == ["ses_1", "ses_1/ses_sub"]
    noticed, refused, other = seen["edits"]
    assert noticed.startswith(f"Edited.\n\nLLM Bus: src/a.py is leased by {team.bob.actor}")
    assert refused.startswith(f"refused: LLM Bus: src/strict/a.py is leased by {team.bob.actor}")
    assert other == "Edited."


def test_the_prompt_has_the_rules_once(connected_opencode: GitRepo, tmp_path: Path) -> None:
    text = (connected_opencode.root / "AGENTS.md").read_text()
    block = f"Instructions from: AGENTS.md\n# Of the user\n{agent_guide.RULES[0].to_list_item()}\n\n{text}"
    instructions = textwrap.indent(agent_guide.INSTRUCTIONS, "    ")
    prompt = (block, f'<server name="llm-bus">\n{instructions}</server>')
    user_part, server_part = run_session(connected_opencode, tmp_path, PROMPT=json.dumps(prompt))["prompt"]
    assert server_part == prompt[1]
    # What the user wrote outside of the block stays, and so does what only the block says.
    assert user_part.count(agent_guide.RULES[0].to_list_item()) == 1
    assert agent_guide.ETIQUETTE not in user_part
    assert "kit doctor" in user_part
    for rule in agent_guide.RULES[1:]:
        assert rule.to_list_item() not in user_part
    # Without the instructions of the server, the block is whole.
    assert run_session(connected_opencode, tmp_path, PROMPT=json.dumps([text]))["prompt"] == [text]


_CONFIG_SESSION = """
import { LLMBus } from "./plugin.mjs"
const hooks = await LLMBus({ client: {}, directory: process.argv[2] })
const config = JSON.parse(process.env.CONFIG)
await hooks.config(config)
console.log(JSON.stringify(config))
"""


@pytest.mark.parametrize("option", [None, "--all-tools", "--lead"])
def test_rarely_used_tools_are_left_out_unless_a_user_or_a_lead_wants_them(
    connected_opencode: GitRepo, tmp_path: Path, option: str | None
) -> None:
    endpoint = json.loads((connected_opencode.root / "llm-bus.config.json").read_text())["endpoint"]
    hidden = {f"llm-bus_{tool}": "deny" for tool in RARE_TOOLS}
    if option is not None:
        connected_opencode.install(endpoint, "--client", "opencode", "--no-seed", option)
        hidden = {}
    server = {"mcp": {"llm-bus": {"url": endpoint}}}
    for permission, expected in (
        (None, hidden),
        ({"edit": "ask", "llm-bus_whoami": "ask"}, {**hidden, "edit": "ask", "llm-bus_whoami": "ask"}),
        ({"llm-bus_*": "allow"}, {"llm-bus_*": "allow"}),
        ("ask", "ask"),
    ):
        config = json.dumps({**server, **({} if permission is None else {"permission": permission})})
        result = run_session(connected_opencode, tmp_path, _CONFIG_SESSION, CONFIG=config)
        assert result["permission"] == expected
    # Without the server there is nothing to leave out.
    assert run_session(connected_opencode, tmp_path, _CONFIG_SESSION, CONFIG="{}") == {}


def test_a_new_post_is_a_message_of_the_running_turn(
    connected_opencode: GitRepo, bob: McpClient, tmp_path: Path
) -> None:
    message = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "post", "arguments": {"body": "hello", "to_actor": "alice"}},
    }
    headers = {
        "Authorization": f"Bearer {bob.token}",
        "Content-Type": "application/json",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": "2025-06-18",
    }
    request = {"method": "POST", "headers": headers, "body": json.dumps(message)}
    # After the greeting, before the end of the turn.
    greeted = 'await hooks["chat.message"](session, { message: {}, parts: second })'
    script = SESSION.replace(greeted, f"{greeted}\nawait fetch({json.dumps(bob.url)}, {json.dumps(request)})")
    assert script != SESSION
    (prompt,) = run_session(connected_opencode, tmp_path, script)["prompts"]
    assert prompt["path"] == {"id": "ses_1"}
    # Neither agent nor model of the session change, and no second turn starts beside the running one.
    expected = {"agent": "plan", "model": {"providerID": "p", "modelID": "m"}, "noReply": True}
    assert prompt["body"].items() >= expected.items()
    assert "1 new post for you" in prompt["body"]["parts"][0]["text"]


@pytest.mark.parametrize(
    "fault",
    [
        "no python",
        "broken kit",
        pytest.param("no kit", marks=pytest.mark.exhaustive),
        pytest.param("no folder", marks=pytest.mark.exhaustive),
    ],
)
def test_without_a_working_kit_nothing_changes(connected_opencode: GitRepo, tmp_path: Path, fault: str) -> None:
    work_tree, env = connected_opencode.root, {}
    if fault == "no kit":
        shutil.rmtree(connected_opencode.kit_path)
    elif fault == "broken kit":
        (connected_opencode.kit_path / "main.py").write_text("print('{\"context\": ')\nraise SystemExit(3)\n")
    elif fault == "no python":
        env = {"PATH": str(tmp_path)}
    else:
        work_tree = tmp_path / "missing"
    seen = run_session(connected_opencode, tmp_path, work_tree=work_tree, **env)
    assert [len(seen[name]) for name in ("first", "second", "subagent")] == [1, 1, 1]
    assert (seen["edits"], seen["prompts"]) == (["Edited."] * 3, [])


def test_the_plugin_has_no_secret_and_no_address(connected_opencode: GitRepo, team: Team) -> None:
    text = (connected_opencode.root / PLUGIN).read_text()
    endpoint = json.loads((connected_opencode.root / "llm-bus.config.json").read_text())["endpoint"]
    assert team.alice.token not in text
    assert "LLM_BUS_TOKEN" not in text
    assert endpoint not in text


@pytest.mark.parametrize("has_record", [True, False])
def test_an_uninstallation_removes_the_plugin_and_its_folders(place: Workplace, has_record: bool) -> None:
    before = place.listing()
    place.install("opencode")
    code, output = place.install("opencode")
    assert code == exit_codes.OK
    assert f"= {PLUGIN}" in output
    if not has_record:
        place.forget()
    code, output = place.uninstall()
    assert (code, place.listing()) == (exit_codes.OK, before)
    assert not (place.top / ".opencode").exists()


@pytest.mark.parametrize("has_record", [True, False])
def test_lines_of_the_user_and_other_plugins_stay(place: Workplace, has_record: bool) -> None:
    place.write(".opencode/plugin/own.js", "export const Own = async () => ({})\n")
    place.install("opencode")
    path = place.top / PLUGIN
    path.write_text(path.read_text() + "export const Mine = async () => ({})\n")
    place.install("opencode")
    assert path.read_text().count("export const LLMBus") == 1
    if not has_record:
        place.forget()
    assert place.uninstall()[0] == exit_codes.OK
    assert path.read_text() == "export const Mine = async () => ({})\n"
    assert (place.top / ".opencode/plugin/own.js").exists()


def test_an_update_replaces_an_older_plugin(place: Workplace) -> None:
    place.install("opencode")
    path = place.top / PLUGIN
    current = path.read_text()
    begin, *_, end = current.splitlines()
    path.write_text(f"{begin}\nexport const Old = 1\n{end}\n")
    assert place.install("opencode")[0] == exit_codes.OK
    assert path.read_text() == current


def test_a_file_of_the_user_with_the_name_of_the_plugin_stays(place: Workplace) -> None:
    path = place.write(PLUGIN, "export const Mine = async () => ({})\n")
    code, output = place.install("opencode")
    assert code == exit_codes.PARTLY
    assert f"! {PLUGIN}: this is another plugin; left as it is" in output
    place.uninstall()
    assert path.read_text() == "export const Mine = async () => ({})\n"
