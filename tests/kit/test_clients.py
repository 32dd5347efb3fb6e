"""What the installer writes for each client: in its format, beside what is there, without the token."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest

from bus.client_setup import Endpoints, mcp_json
from tests.kit.git_repo import GitRepo

URL = "https://bus.example.org/mcp"
TOKEN = "lbus_" + "b" * 49

JSON = {
    "claude": (".mcp.json", ("mcpServers", "llm-bus")),
    "gemini": (".gemini/settings.json", ("mcpServers", "llm-bus")),
    "cursor": (".cursor/mcp.json", ("mcpServers", "llm-bus")),
    "vscode": (".vscode/mcp.json", ("servers", "llm-bus")),
    "opencode": ("opencode.json", ("mcp", "llm-bus")),
}


def _at(found: Any, path: tuple[str, ...]) -> Any:
    for key in path:
        found = found[key]
    return found


def test_each_client_gets_what_the_cards_of_the_bus_say(plain: GitRepo) -> None:
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
        found = json.loads(file.read_text())
        assert {**_at(found, path), **entry} == _at(found, path), name
        if name == "vscode":
            (asked,) = found["inputs"]
            assert (asked["type"], asked["id"], asked["password"]) == ("promptString", "llm-bus-token", True)
    claude = json.loads((plain.root / ".mcp.json").read_text())
    assert claude == mcp_json(Endpoints("https://bus.example.org", URL))
    gemini = json.loads((plain.root / ".gemini/settings.json").read_text())["mcpServers"]["llm-bus"]
    assert gemini == {"httpUrl": URL, "headers": {"Authorization": "Bearer ${LLM_BUS_TOKEN}"}}
    codex = tomllib.loads((plain.root / ".codex/config.toml").read_text())
    assert codex == {"mcp_servers": {"llm-bus": {"url": URL, "bearer_token_env_var": "LLM_BUS_TOKEN"}}}


# The documented forms, as far as we write them: the keys of an entry and their types.
COMMAND = {"type": str, "command": str, "timeout": int}
HOOKS = {
    ".claude/settings.json": {"SessionStart": COMMAND, "Stop": COMMAND, "PostToolUse": COMMAND},
    ".codex/hooks.json": {"SessionStart": COMMAND, "Stop": COMMAND},
    ".gemini/settings.json": {"SessionStart": {"name": str, **COMMAND}, "AfterAgent": {"name": str, **COMMAND}},
}


@pytest.mark.parametrize("file", HOOKS)
def test_hooks_have_the_documented_form(plain: GitRepo, file: str) -> None:
    plain.install(URL, "--client", "all")
    hooks = json.loads((plain.root / file).read_text())["hooks"]
    assert set(hooks) == set(HOOKS[file])
    for event, groups in hooks.items():
        (group,) = groups
        assert set(group) <= {"matcher", "hooks"}
        assert group.get("matcher") == ("Write|Edit|MultiEdit" if event == "PostToolUse" else None)
        (hook,) = group["hooks"]
        assert {name: type(value) for name, value in hook.items()} == HOOKS[file][event]
        assert hook["type"] == "command"
        # Seconds, but for Gemini, which counts milliseconds.
        assert hook["timeout"] == (10_000 if "gemini" in file else 10)


def test_the_hooks_of_cursor_and_the_background_wait_of_claude_have_the_documented_form(plain: GitRepo) -> None:
    plain.install(URL, "--client", "all", "--wake")
    cursor = json.loads((plain.root / ".cursor/hooks.json").read_text())
    assert cursor["version"] == 1
    assert set(cursor["hooks"]) == {"sessionStart", "stop"}
    assert cursor["hooks"]["stop"][0]["loop_limit"] == 1
    stops = json.loads((plain.root / ".claude/settings.json").read_text())["hooks"]["Stop"]
    assert [group["hooks"][0].get("asyncRewake") for group in stops] == [None, True]
    # Asked for no longer, it goes.
    plain.install(URL, "--client", "claude")
    assert len(json.loads((plain.root / ".claude/settings.json").read_text())["hooks"]["Stop"]) == 1


def test_the_commands_run_in_any_shell(plain: GitRepo) -> None:
    """No variable, no quote but double ones around single ones: sh, cmd and PowerShell read them alike."""
    plain.install(URL, "--client", "claude")
    hooks = json.loads((plain.root / ".claude/settings.json").read_text())["hooks"]
    for groups in hooks.values():
        command = groups[0]["hooks"][0]["command"]
        assert not set("$`%\\!&|<>^") & set(command)
        assert command.count('"') == 2
        done = plain.run("sh", "-c", command, cwd=plain.root / "docs", stdin="{}")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


OTHERS = {
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


def test_what_is_there_stays_and_comes_back_to_the_byte(plain: GitRepo) -> None:
    for name, text in OTHERS.items():
        path = plain.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    before = plain.snapshot()
    plain.install(URL, "--client", "all")
    mcp = (plain.root / ".mcp.json").read_bytes().decode()
    assert mcp.startswith(OTHERS[".mcp.json"].split('"args": []}')[0])
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


def test_what_was_changed_since_keeps_its_changes(plain: GitRepo) -> None:
    plain.install(URL, "--client", "all")
    mcp = plain.root / ".mcp.json"
    mcp.write_text(mcp.read_text().replace('"mcpServers": {', '"mcpServers": {\n    "new": {"command": "y"},'))
    claude = plain.root / "CLAUDE.md"
    claude.write_text("Mine, above.\n\n" + claude.read_text() + "\nMine, below.\n")
    codex = plain.root / ".codex/config.toml"
    codex.write_text(codex.read_text() + '[profiles.x]\nmodel = "y"\n')
    # A second run in between does not forget whose is what.
    plain.install(URL, "--client", "all")
    plain.install("https://other.example.org/mcp", "--client", "all")
    assert "other.example.org" in mcp.read_text()
    assert "other.example.org" in codex.read_text()
    plain.run_kit("uninstall")
    assert json.loads(mcp.read_text()) == {"mcpServers": {"new": {"command": "y"}}}
    assert claude.read_text().split() == ["Mine,", "above.", "Mine,", "below."]
    assert tomllib.loads(codex.read_text()) == {"profiles": {"x": {"model": "y"}}}
    assert not (plain.root / ".gemini").exists()


def test_a_server_of_that_name_which_somebody_wrote_himself_stays(plain: GitRepo) -> None:
    own = '{"mcpServers": {"llm-bus": {"type": "http", "url": "https://mine/mcp"}}}'
    plain.write(".mcp.json", own)
    plain.write(".codex/config.toml", '[mcp_servers.llm-bus]\nurl = "https://mine/mcp"\n')
    done = plain.install(URL, "--client", "claude,codex")
    assert "--force replaces it" in done.stdout
    assert (plain.root / ".mcp.json").read_text() == own
    assert "mine" in (plain.root / ".codex/config.toml").read_text()
    plain.install(URL, "--client", "claude", "--force")
    assert URL in (plain.root / ".mcp.json").read_text()


def test_a_file_that_is_not_json_is_left_as_it_is_and_the_rest_goes_on(plain: GitRepo) -> None:
    plain.write(".mcp.json", "{ broken")
    done = plain.install(URL, "--client", "claude,cursor")
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
    assert {name: held for name, held in plain.snapshot().items() if "__pycache__" not in name} == {
        name: held for name, held in after.items() if "__pycache__" not in name
    }


def test_clients_are_found_by_what_they_left(plain: GitRepo) -> None:
    (plain.root / ".cursor").mkdir()
    (Path(plain.env["HOME"]) / ".gemini").mkdir()
    plain.install(URL)
    assert (plain.root / ".cursor/mcp.json").exists()
    assert (plain.root / ".gemini/settings.json").exists()
    for name in (".mcp.json", ".codex", ".vscode/mcp.json", "opencode.json"):
        assert not (plain.root / name).exists(), name
    done = plain.run(plain.python, str(plain.root / ".llm-bus/kit/__main__.py"), "install", "--client", "emacs")
    assert (done.returncode, "known are: claude" in done.stderr) == (1, True)


def test_a_saved_token_stays_inside_git_and_out_of_everything_else(plain: GitRepo) -> None:
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


def test_the_starter_for_knowledge_never_overwrites(plain: GitRepo) -> None:
    plain.write("docs/wiki/index.md", "mine\n")
    done = plain.install(URL, "--client", "none", "--with-okf")
    assert "is there already" in done.stdout
    assert (plain.root / "docs/wiki/index.md").read_text() == "mine\n"
    plain.write("docs/wiki/log.md", "a finding\n")
    plain.install(URL, "--client", "none", "--with-okf")
    plain.run_kit("uninstall")
    assert (plain.root / "docs/wiki/log.md").read_text() == "a finding\n"
    assert not (plain.root / "docs/wiki/overview.md").exists()


def test_instructions_go_where_they_are_read_and_are_renewed_in_place(plain: GitRepo) -> None:
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
