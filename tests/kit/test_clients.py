"""The installer writes each client's configuration in its format, keeps existing entries, and never the token."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from bus.client_setup import Endpoints, mcp_json
from bus.rules.token_format import generate_token
from kit import exit_codes
from kit.client_files import RARE_TOOLS
from mcp_gateway.tools import all_tools
from tests.kit.git_repo import INSTALLER_PATH, GitRepo
from tests.kit.workplace import make_workplace

URL = "https://bus.example.org/mcp"
TOKEN = generate_token()

JSON = {
    "claude": (".mcp.json", ("mcpServers", "llm-bus")),
    "gemini": (".gemini/settings.json", ("mcpServers", "llm-bus")),
    "cursor": (".cursor/mcp.json", ("mcpServers", "llm-bus")),
    "vscode": (".vscode/mcp.json", ("servers", "llm-bus")),
    "opencode": ("opencode.json", ("mcp", "llm-bus")),
}


def _value_at(document: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        document = document[key]
    return document


def test_each_client_gets_the_entry_that_the_set_up_instructions_show(plain: GitRepo) -> None:
    plain.install(URL, "--client", "all", LLM_BUS_TOKEN=TOKEN)
    home = Path(plain.env["HOME"])
    url, header = {"url": URL}, "Authorization"
    in_env = {"headers": {header: "Bearer ${env:LLM_BUS_TOKEN}"}}
    expected: dict[str, dict[str, Any]] = {
        "cursor": {**url, **in_env},
        "vscode": {"type": "http", **url, "headers": {header: "Bearer ${input:llm-bus-token}"}},
        "opencode": {"type": "remote", **url, "headers": {header: "Bearer {env:LLM_BUS_TOKEN}"}},
        "windsurf": {"serverUrl": URL, **in_env},
    }
    for name, entry in expected.items():
        place, path = JSON.get(name, ("", ("mcpServers", "llm-bus")))
        file = plain.root / place if place else home / ".codeium/windsurf/mcp_config.json"
        document = json.loads(file.read_text())
        assert {**_value_at(document, path), **entry} == _value_at(document, path), name
        if name == "vscode":
            (prompt,) = document["inputs"]
            assert (prompt["type"], prompt["id"], prompt["password"]) == ("promptString", "llm-bus-token", True)
    claude = json.loads((plain.root / ".mcp.json").read_text())
    entry = claude["mcpServers"]["llm-bus"]
    # The helper names the session, and adds a saved token; without one the variable has it, which may be unset.
    assert entry.pop("headersHelper").endswith(" headers claude")
    shown = mcp_json(Endpoints("https://bus.example.org", URL))
    shown["mcpServers"]["llm-bus"]["headers"] = {header: "Bearer ${LLM_BUS_TOKEN:-}"}
    assert claude == shown
    gemini = json.loads((plain.root / ".gemini/settings.json").read_text())["mcpServers"]["llm-bus"]
    assert gemini.pop("excludeTools") == list(RARE_TOOLS)
    assert gemini == {"httpUrl": URL, "headers": {"Authorization": "Bearer ${LLM_BUS_TOKEN}"}}
    codex = tomllib.loads((plain.root / ".codex/config.toml").read_text())
    assert codex == {"mcp_servers": {"llm-bus": {"url": URL, "bearer_token_env_var": "LLM_BUS_TOKEN"}}}


# The documented form of a hook, as far as the installer writes it: the keys of an entry and their types.
COMMAND = {"type": str, "command": str, "timeout": int}
NAMED_COMMAND = {"name": str, **COMMAND}
EVENTS = ("SessionStart", "SessionEnd", "Stop", "SubagentStop", "PreToolUse", "PostToolUse")
HOOKS: dict[str, dict[str, dict[str, type]]] = {
    ".claude/settings.json": dict.fromkeys((*EVENTS, "PostToolUseFailure"), COMMAND),
    ".codex/hooks.json": dict.fromkeys(EVENTS, COMMAND),
    ".gemini/settings.json": dict.fromkeys(
        ("SessionStart", "SessionEnd", "AfterAgent", "BeforeTool", "AfterTool"), NAMED_COMMAND
    ),
}
MATCHERS = {
    (".claude/settings.json", "PreToolUse"): "Edit|Write|MultiEdit|NotebookEdit|mcp__llm-bus__.*",
    (".codex/hooks.json", "PreToolUse"): "apply_patch",
    (".gemini/settings.json", "BeforeTool"): "write_file|replace|run_shell_command|mcp_llm-bus_.*",
    (".gemini/settings.json", "AfterTool"): "*",
}


@pytest.mark.parametrize("file", HOOKS)
def test_hooks_have_the_documented_form(plain: GitRepo, file: str) -> None:
    plain.install(URL, "--client", "all")
    hooks = json.loads((plain.root / file).read_text())["hooks"]
    assert set(hooks) == set(HOOKS[file])
    for event, groups in hooks.items():
        (group,) = groups
        assert set(group) <= {"matcher", "hooks"}
        assert group.get("matcher") == MATCHERS.get((file, event))
        (hook,) = group["hooks"]
        assert {name: type(value) for name, value in hook.items()} == HOOKS[file][event]
        assert hook["type"] == "command"
        # In seconds, except for Gemini, which counts milliseconds.
        assert hook["timeout"] == (10_000 if "gemini" in file else 10)


def test_the_hooks_of_cursor_and_the_background_wait_of_claude_have_the_documented_form(plain: GitRepo) -> None:
    plain.install(URL, "--client", "all", "--wake")
    cursor = json.loads((plain.root / ".cursor/hooks.json").read_text())
    assert cursor["version"] == 1
    assert set(cursor["hooks"]) == {"sessionStart", "stop"}
    assert cursor["hooks"]["stop"][0]["loop_limit"] == 1
    stops = json.loads((plain.root / ".claude/settings.json").read_text())["hooks"]["Stop"]
    assert [group["hooks"][0].get("asyncRewake") for group in stops] == [None, True]
    # Without the option the background wait is removed.
    plain.install(URL, "--client", "claude")
    assert len(json.loads((plain.root / ".claude/settings.json").read_text())["hooks"]["Stop"]) == 1


def test_the_hook_commands_run_in_any_shell(plain: GitRepo) -> None:
    """No variable, and no quotes except single inside double ones: sh, cmd and PowerShell parse them alike."""
    plain.install(URL, "--client", "claude")
    hooks = json.loads((plain.root / ".claude/settings.json").read_text())["hooks"]
    for groups in hooks.values():
        command = groups[0]["hooks"][0]["command"]
        assert not set("$`%\\!&|<>^") & set(command)
        assert command.count('"') == 2
        done = plain.run("sh", "-c", command, cwd=plain.root / "docs", stdin="{}")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


EXISTING_FILES = {
    ".mcp.json": '{\r\n\t"mcpServers": {\r\n\t\t"other": {"command": "x", "args": []}\r\n\t}\r\n}\r\n',
    ".claude/settings.json": '{"permissions": {"allow": ["Bash(ls)"]}, "hooks": {"Stop": [{"hooks": '
    '[{"type": "command", "command": "say done"}]}]}}',
    ".gemini/settings.json": '{\n    "theme": "dark",\n    "mcpServers": {}\n}',
    ".cursor/mcp.json": "{}",
    ".cursor/hooks.json": '{\n  "version": 1,\n  "hooks": {\n    "stop": [\n      {"command": "true"}\n    ]\n  }\n}\n',
    ".vscode/mcp.json": '{\n  // Servers of the team.\n  "servers": {\n    '
    '"a": {"type": "http", "url": "https://a"}, /* b */\n'
    '  },\n  "inputs": [{"id": "mine", "type": "promptString"}],\n}\n',
    "opencode.jsonc": '\ufeff{\n  // mine\n  "model": "x", // why\n}\n',
    ".codex/config.toml": 'model = "o"\n\n[mcp_servers.other]\ncommand = "x"',
    "CLAUDE.md": "# Rules\r\n\r\nBe kind.",
    "AGENTS.md": "",
    "GEMINI.md": "x\n",
}


def test_existing_entries_stay_and_an_uninstall_restores_each_file_byte_for_byte(plain: GitRepo) -> None:
    for name, text in EXISTING_FILES.items():
        path = plain.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    before = plain.snapshot()
    plain.install(URL, "--client", "all")
    mcp = (plain.root / ".mcp.json").read_bytes().decode()
    assert mcp.startswith(EXISTING_FILES[".mcp.json"].split('"args": []}')[0])
    assert "\n" not in mcp.replace("\r\n", "")
    assert json.loads(mcp)["mcpServers"].keys() == {"other", "llm-bus"}
    claude = json.loads((plain.root / ".claude/settings.json").read_text())
    assert claude["permissions"] == {"allow": ["Bash(ls)"]}
    assert [len(group["hooks"]) for group in claude["hooks"]["Stop"]] == [1, 1]
    vscode = (plain.root / ".vscode/mcp.json").read_text()
    assert "// Servers of the team." in vscode
    assert "/* b */" in vscode
    assert tomllib.loads((plain.root / ".codex/config.toml").read_text())["mcp_servers"].keys() == {"other", "llm-bus"}
    assert not (plain.root / "opencode.json").exists()
    assert "// why" in (plain.root / "opencode.jsonc").read_text("utf-8")
    plain.run_kit("uninstall")
    assert plain.snapshot() == before


def test_an_uninstall_keeps_changes_that_the_user_made_since(plain: GitRepo) -> None:
    plain.install(URL, "--client", "all")
    mcp = plain.root / ".mcp.json"
    mcp.write_text(mcp.read_text().replace('"mcpServers": {', '"mcpServers": {\n    "new": {"command": "y"},'))
    claude = plain.root / "CLAUDE.md"
    claude.write_text("Mine, above.\n\n" + claude.read_text() + "\nMine, below.\n")
    codex = plain.root / ".codex/config.toml"
    codex.write_text(codex.read_text() + '[profiles.x]\nmodel = "y"\n')
    # Further installations in between keep track of the kit's parts.
    plain.install(URL, "--client", "all")
    plain.install("https://other.example.org/mcp", "--client", "all")
    assert "other.example.org" in mcp.read_text()
    assert "other.example.org" in codex.read_text()
    plain.run_kit("uninstall")
    assert json.loads(mcp.read_text()) == {"mcpServers": {"new": {"command": "y"}}}
    assert claude.read_text().split() == ["Mine,", "above.", "Mine,", "below."]
    assert tomllib.loads(codex.read_text()) == {"profiles": {"x": {"model": "y"}}}
    assert not (plain.root / ".gemini").exists()


def test_rarely_used_tools_are_left_out_unless_a_user_or_a_lead_wants_them(plain: GitRepo) -> None:
    def installed(*options: str) -> object:
        plain.install(URL, "--client", "gemini", *options)
        return json.loads(path.read_text())["mcpServers"]["llm-bus"].get("excludeTools")

    path = plain.root / ".gemini/settings.json"
    # Otherwise a name that is no longer one of a tool would leave out nothing.
    assert set(RARE_TOOLS) < set(all_tools())
    assert installed() == list(RARE_TOOLS)
    for options in (["--all-tools"], ["--lead"], []):
        # An update does not leave them out again.
        assert installed(*options) is None
    plain.run_kit("uninstall")
    assert not path.exists()
    assert installed("--lead") is None
    done = plain.install(URL, "--client", "gemini,opencode")
    assert "Gemini CLI and OpenCode: rarely used tools are left out; run this with --all-tools" in done.stdout


def test_a_server_of_the_same_name_that_the_user_wrote_stays(plain: GitRepo) -> None:
    own = '{"mcpServers": {"llm-bus": {"type": "http", "url": "https://mine/mcp"}}}'
    plain.write(".mcp.json", own)
    plain.write(".codex/config.toml", '[mcp_servers.llm-bus]\nurl = "https://mine/mcp"\n')
    done = plain.install(URL, "--client", "claude,codex")
    assert "--force replaces it" in done.stdout
    assert (plain.root / ".mcp.json").read_text() == own
    assert "mine" in (plain.root / ".codex/config.toml").read_text()
    plain.install(URL, "--client", "claude", "--force")
    assert URL in (plain.root / ".mcp.json").read_text()


def test_a_file_that_is_not_json_is_left_unchanged_and_the_installation_continues(plain: GitRepo) -> None:
    plain.write(".mcp.json", "{ broken")
    done = plain.run(plain.launcher, str(INSTALLER_PATH), "--endpoint", URL, "--client", "claude,cursor")
    assert done.returncode == exit_codes.PARTLY
    assert "! .mcp.json" in done.stdout
    assert "left as it is" in done.stdout
    assert (plain.root / ".mcp.json").read_text() == "{ broken"
    assert (plain.root / ".cursor/mcp.json").exists()


def test_a_dry_run_changes_nothing(plain: GitRepo) -> None:
    before = plain.snapshot()
    done = plain.install(URL, "--client", "all", "--with-okf", "--dry-run")
    assert "nothing was changed" in done.stdout
    assert "+ .mcp.json" in done.stdout
    assert plain.snapshot() == before
    plain.install(URL, "--client", "all")
    after = plain.snapshot()
    done = plain.run_kit("uninstall", "--dry-run")
    assert "- .mcp.json" in done.stdout
    assert _without_caches(plain.snapshot()) == _without_caches(after)


def _without_caches(snapshot: dict[str, Any]) -> dict[str, Any]:
    return {name: content for name, content in snapshot.items() if "__pycache__" not in name}


def test_a_reinstallation_deletes_the_files_of_an_earlier_version(plain: GitRepo) -> None:
    before = plain.snapshot()
    plain.install(URL, "--client", "none")
    installed = _without_caches(plain.snapshot())
    record = plain.root / ".git" / "llm-bus" / "installed.json"
    document = json.loads(record.read_text())
    for name in ("wake.py", "blocks/old.md"):
        path = plain.write(f".llm-bus/kit/{name}", "# of version 1.0.0\n")
        document["files"][str(path)] = {"before": None, "after": "x", "mode": None, "folders": []}
    record.write_text(json.dumps(document))
    done = plain.install(URL, "--client", "none", "--dry-run")
    assert "- .llm-bus (2 files)" in done.stdout
    assert (plain.root / ".llm-bus/kit/wake.py").exists()
    assert "- .llm-bus (2 files)" in plain.install(URL, "--client", "none").stdout
    after = _without_caches(plain.snapshot())
    # The record of the changes still lists the deleted files.
    assert {**after, "llm-bus": None} == {**installed, "llm-bus": None}
    assert "- .llm-bus" not in plain.install(URL, "--client", "none").stdout
    plain.run_kit("uninstall")
    assert plain.snapshot() == before


def test_an_uninstall_restores_committed_kit_files_that_the_installation_deleted(plain: GitRepo) -> None:
    """In a clone the kit of an earlier version is committed, and no record of its installation exists."""
    plain.write(".llm-bus/kit/wake.py", "# of version 1.0.0\n")
    plain.write(".llm-bus/kit/main.py", "# of version 1.0.0\n")
    plain.write(".llm-bus/kit/notes.txt", "not a file of the kit\n")
    before = plain.snapshot()
    plain.install(URL, "--client", "none")
    assert not (plain.root / ".llm-bus/kit/wake.py").exists()
    assert (plain.root / ".llm-bus/kit/notes.txt").exists()
    plain.run_kit("uninstall")
    assert plain.snapshot() == before


@pytest.mark.parametrize(
    ("is_windows", "setting"), [(False, "export LLM_BUS_TOKEN=…"), (True, '$env:LLM_BUS_TOKEN = "…"')]
)
def test_the_token_is_set_by_the_shell_and_never_an_argument_of_a_program(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    is_windows: bool,
    setting: str,
) -> None:
    place = make_workplace(tmp_path, monkeypatch, capsys)
    monkeypatch.setattr("kit.clients.is_windows", lambda: is_windows)
    assert place.install("gemini")[1].splitlines()[-5].endswith(f"LLM_BUS_TOKEN from the environment: {setting}")


def test_clients_are_detected_by_their_folders(plain: GitRepo) -> None:
    (plain.root / ".cursor").mkdir()
    (Path(plain.env["HOME"]) / ".gemini").mkdir()
    plain.install(URL)
    assert (plain.root / ".cursor/mcp.json").exists()
    assert (plain.root / ".gemini/settings.json").exists()
    for name in (".mcp.json", ".codex", ".vscode/mcp.json", "opencode.json"):
        assert not (plain.root / name).exists(), name
    done = plain.run(plain.launcher, str(plain.kit_path), "install", "--client", "emacs")
    assert (done.returncode, "the known clients are claude" in done.stderr) == (1, True)


def test_a_saved_token_is_only_in_one_file_inside_git(plain: GitRepo) -> None:
    done = plain.install(URL, "--client", "all", "--save-token", LLM_BUS_TOKEN=TOKEN)
    saved = plain.root / ".git" / "llm-bus" / "token"
    assert saved.read_text().strip() == TOKEN
    assert saved.stat().st_mode & 0o077 == 0
    assert TOKEN not in done.stdout + done.stderr
    plain.git("add", "-A")
    assert TOKEN not in plain.git("diff", "--cached").stdout
    for path in (*plain.root.rglob("*"), *Path(plain.env["HOME"]).rglob("*")):
        if path.is_file() and path != saved and ".git/objects" not in str(path):
            assert TOKEN.encode() not in path.read_bytes(), path
    done = plain.run_kit("doctor")
    assert "saved inside .git" in done.stdout
    assert TOKEN not in done.stdout
    plain.git("reset", "-q")
    plain.run_kit("uninstall")
    assert not saved.parent.exists()


def test_the_knowledge_pages_never_overwrite_a_file(plain: GitRepo) -> None:
    plain.write("docs/wiki/index.md", "mine\n")
    done = plain.install(URL, "--client", "none", "--with-okf")
    assert "already exists" in done.stdout
    assert (plain.root / "docs/wiki/index.md").read_text() == "mine\n"
    plain.write("docs/wiki/log.md", "a finding\n")
    plain.install(URL, "--client", "none", "--with-okf")
    plain.run_kit("uninstall")
    assert (plain.root / "docs/wiki/log.md").read_text() == "a finding\n"
    assert not (plain.root / "docs/wiki/overview.md").exists()


def test_instructions_go_into_the_file_that_the_client_reads_and_are_replaced_in_place(plain: GitRepo) -> None:
    plain.write("CLAUDE.md", "@AGENTS.md\n")
    plain.install(URL, "--client", "claude,codex,gemini")
    assert (plain.root / "CLAUDE.md").read_text() == "@AGENTS.md\n"
    text = (plain.root / "AGENTS.md").read_text()
    assert text.count("## LLM Bus") == 1
    plain.install(URL, "--client", "claude,codex,gemini", "--lead")
    assert "You lead this project" in (plain.root / "AGENTS.md").read_text()
    assert (plain.root / "AGENTS.md").read_text().count("## LLM Bus") == 1
    plain.install(URL, "--client", "claude,codex,gemini")
    assert (plain.root / "AGENTS.md").read_text() == text
