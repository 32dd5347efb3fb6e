"""The configuration of each client, in its own format and place, without the token."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit import jsonc
from kit.file_edits import FileEdits
from kit.repo import Repo

SERVER_NAME = "llm-bus"
# Works in every shell and without one: no other quotes, no variable, no path. It asks git for the folder that all
# worktrees share, runs the kit that is installed there, and ends with 0 if there is none. No file of the checked-out
# branch is run: Python imports nothing from the current folder (-I), and git uses no folder that only looks like one.
HOOK_LAUNCHER = (
    "import os,runpy,shutil as u,subprocess as s;d=os.environ.get('CLAUDE_PROJECT_DIR')or'.';"
    "r=os.path.isdir(d)and u.which('git')and s.run(['git','-c','safe.bareRepository=explicit','rev-parse',"
    "'--git-common-dir'],cwd=d,stdin=s.DEVNULL,stdout=s.PIPE,stderr=s.DEVNULL);"
    "k=r and r.returncode==0 and os.path.join(d,os.fsdecode(r.stdout)[:-1],'llm-bus','kit');"
    "k and os.path.isfile(os.path.join(k,'__main__.py'))and runpy.run_path(k,run_name='__main__')"
)
TOML_BEGIN, TOML_END = "# >>> llm-bus >>>", "# <<< llm-bus <<<"
_TOML_BLOCK = re.compile(rf"\n?{re.escape(TOML_BEGIN)}.*?{re.escape(TOML_END)}\r?\n", re.DOTALL)
_TOML_SERVER_TABLE = re.compile(
    r'^\s*\[\s*mcp_servers\s*\.\s*(?:llm-bus|"llm-bus")\s*\]|^\s*mcp_servers\s*=', re.MULTILINE
)


@dataclass(frozen=True)
class InstallOptions:
    """The options of an installation that configure the clients.

    Attributes:
        token_variable: the environment variable from which the clients read the token.
        wake_in_background: whether Claude Code waits for posts in the background.
        force: whether to replace a server entry of the same name that the kit did not write.
    """

    repo: Repo
    home_dir: Path
    endpoint: str
    token_variable: str
    wake_in_background: bool
    force: bool


@dataclass(frozen=True)
class Client:
    """A client: how to detect it, how to configure it, and the file with its instructions."""

    name: str
    title: str
    executables: tuple[str, ...]
    repo_markers: tuple[str, ...]
    home_markers: tuple[str, ...]
    configure: Callable[[InstallOptions, FileEdits], None]
    instructions_file: str

    def is_present(self, options: InstallOptions) -> bool:
        """Whether the client is used here: on the PATH, in the repository, or in the user's home folder."""
        return (
            any((options.repo.top / name).exists() for name in self.repo_markers)
            or any((options.home_dir / name).exists() for name in self.home_markers)
            or any(shutil.which(program) for program in self.executables)
        )


def hook_command(arguments: str) -> str:
    """Build the command line that runs the kit from a client's hook."""
    python = "python" if sys.platform == "win32" else "python3"
    return f'{python} -I -c "{HOOK_LAUNCHER}" {arguments}'


def _auth_headers(reference: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {reference}"}


def _configure_claude(options: InstallOptions, edits: FileEdits) -> None:
    top = options.repo.top
    server = {"type": "http", "url": options.endpoint, "headers": _auth_headers(f"${{{options.token_variable}}}")}
    _write_server(options, edits, top / ".mcp.json", ("mcpServers", SERVER_NAME), server, "url")
    hooks: list[tuple[str, dict[str, Any]]] = [
        ("SessionStart", {"hooks": [_make_hook("wake start claude", 10)]}),
        ("Stop", {"hooks": [_make_hook("wake stop claude", 10)]}),
        ("PostToolUse", {"matcher": "Write|Edit|MultiEdit", "hooks": [_make_hook("reconcile --claude", 10)]}),
    ]
    if options.wake_in_background:
        rewake = {**_make_hook("wake wait claude", 3600), "async": True, "asyncRewake": True}
        hooks.append(("Stop", {"hooks": [rewake]}))
    _write_hooks(edits, top / ".claude" / "settings.json", hooks)


def _configure_codex(options: InstallOptions, edits: FileEdits) -> None:
    folder = options.repo.top / ".codex"
    _write_toml_server(options, edits, folder / "config.toml")
    _write_hooks(
        edits,
        folder / "hooks.json",
        [
            ("SessionStart", {"hooks": [_make_hook("wake start codex", 10)]}),
            ("Stop", {"hooks": [_make_hook("wake stop codex", 10)]}),
        ],
    )


def _configure_gemini(options: InstallOptions, edits: FileEdits) -> None:
    path = options.repo.top / ".gemini" / "settings.json"
    server = {"httpUrl": options.endpoint, "headers": _auth_headers(f"${{{options.token_variable}}}")}
    _write_server(options, edits, path, ("mcpServers", SERVER_NAME), server, "httpUrl")
    # Gemini CLI counts timeouts in milliseconds.
    _write_hooks(
        edits,
        path,
        [
            ("SessionStart", {"hooks": [{"name": SERVER_NAME, **_make_hook("wake start gemini", 10_000)}]}),
            ("AfterAgent", {"hooks": [{"name": SERVER_NAME, **_make_hook("wake stop gemini", 10_000)}]}),
        ],
    )


def _configure_cursor(options: InstallOptions, edits: FileEdits) -> None:
    folder = options.repo.top / ".cursor"
    server = {"url": options.endpoint, "headers": _auth_headers(f"${{env:{options.token_variable}}}")}
    _write_server(options, edits, folder / "mcp.json", ("mcpServers", SERVER_NAME), server, "url")
    _write_hooks(
        edits,
        folder / "hooks.json",
        [
            ("sessionStart", {"command": hook_command("wake start cursor"), "timeout": 10}),
            ("stop", {"command": hook_command("wake stop cursor"), "timeout": 10, "loop_limit": 1}),
        ],
        version=1,
    )


def _configure_vscode(options: InstallOptions, edits: FileEdits) -> None:
    path = options.repo.top / ".vscode" / "mcp.json"
    server = {"type": "http", "url": options.endpoint, "headers": _auth_headers(f"${{input:{SERVER_NAME}-token}}")}
    if not _write_server(options, edits, path, ("servers", SERVER_NAME), server, "url"):
        return
    prompt = {"type": "promptString", "id": f"{SERVER_NAME}-token", "description": "LLM Bus token", "password": True}
    text = _read_text(path) if path.exists() else ""
    inputs = jsonc.read_value(text, ("inputs",)) if text else None
    if not isinstance(inputs, list) or not any(_is_our_input(entry) for entry in inputs):
        _write_text(edits, path, jsonc.append_item(text, ("inputs",), prompt))


def _configure_opencode(options: InstallOptions, edits: FileEdits) -> None:
    top = options.repo.top
    path = next((top / name for name in ("opencode.jsonc", "opencode.json") if (top / name).exists()), None)
    path = path or top / "opencode.json"
    text = _read_text(path) if path.exists() else '{\n  "$schema": "https://opencode.ai/config.json"\n}\n'
    server: dict[str, Any] = {"type": "remote", "url": options.endpoint}
    headers = {"oauth": False, "headers": _auth_headers(f"{{env:{options.token_variable}}}")}
    # Version 2 of OpenCode nests the servers one level deeper and has no "enabled".
    if isinstance(_read_value_or_none(text, ("mcp", "servers")), dict):
        _write_server(options, edits, path, ("mcp", "servers", SERVER_NAME), {**server, **headers}, "url", text)
    else:
        _write_server(options, edits, path, ("mcp", SERVER_NAME), {**server, "enabled": True, **headers}, "url", text)


def _configure_windsurf(options: InstallOptions, edits: FileEdits) -> None:
    # Windsurf reads no file of a project.
    path = options.home_dir / ".codeium" / "windsurf" / "mcp_config.json"
    server = {"serverUrl": options.endpoint, "headers": _auth_headers(f"${{env:{options.token_variable}}}")}
    _write_server(options, edits, path, ("mcpServers", SERVER_NAME), server, "serverUrl")


CLIENTS = (
    Client(
        "claude",
        "Claude Code",
        ("claude",),
        (".claude", ".mcp.json", "CLAUDE.md"),
        (".claude",),
        _configure_claude,
        "CLAUDE.md",
    ),
    Client("codex", "Codex", ("codex",), (".codex",), (".codex",), _configure_codex, "AGENTS.md"),
    Client("gemini", "Gemini CLI", ("gemini",), (".gemini", "GEMINI.md"), (".gemini",), _configure_gemini, "GEMINI.md"),
    Client("cursor", "Cursor", ("cursor",), (".cursor",), (".cursor",), _configure_cursor, "AGENTS.md"),
    Client("vscode", "VS Code", ("code",), (".vscode",), (".vscode",), _configure_vscode, "AGENTS.md"),
    Client(
        "opencode",
        "OpenCode",
        ("opencode",),
        ("opencode.json", "opencode.jsonc", ".opencode"),
        (".config/opencode",),
        _configure_opencode,
        "AGENTS.md",
    ),
    Client(
        "windsurf", "Windsurf", ("windsurf",), (".windsurf",), (".codeium/windsurf",), _configure_windsurf, "AGENTS.md"
    ),
)


def remove_our_entries(content: bytes) -> bytes | None:
    """Return a client's configuration without the kit's entries."""
    text = content.decode("utf-8")
    if TOML_BEGIN in text:
        return _TOML_BLOCK.sub("", text).encode("utf-8")
    for path in (
        ("mcpServers", SERVER_NAME),
        ("servers", SERVER_NAME),
        ("mcp", "servers", SERVER_NAME),
        ("mcp", SERVER_NAME),
    ):
        text = jsonc.remove_value(text, path)
    hooks = jsonc.read_value(text, ("hooks",))
    for event in hooks if isinstance(hooks, dict) else ():
        text = _remove_our_hooks(text, ("hooks", event))
    inputs = jsonc.read_value(text, ("inputs",))
    for index in range(len(inputs) - 1, -1, -1) if isinstance(inputs, list) else ():
        if _is_our_input(inputs[index]):
            text = jsonc.remove_value(text, ("inputs",), index)
    return text.encode("utf-8")


def _make_hook(arguments: str, timeout: int) -> dict[str, Any]:
    return {"type": "command", "command": hook_command(arguments), "timeout": timeout}


def _write_server(
    options: InstallOptions,
    edits: FileEdits,
    path: Path,
    keys: tuple[str, ...],
    server: dict[str, Any],
    url_key: str,
    text: str | None = None,
) -> bool:
    """Write the server entry, unless the user wrote one of the same name. Returns whether the kit's entry is there."""
    text = text if text is not None else _read_text(path) if path.exists() else ""
    try:
        entry = jsonc.read_value(text, keys) if text.strip("\ufeff \t\r\n") else None
        if entry is not None and entry != server and not edits.is_ours(path) and not options.force:
            url = entry.get(url_key) if isinstance(entry, dict) else None
            edits.messages.append(f"= {path.name} already has a server {SERVER_NAME} ({url}); --force replaces it")
            return False
        _write_text(edits, path, jsonc.set_value(text, keys, server))
    except jsonc.NotJsonError as error:
        edits.messages.append(f"! {path}: {error}; left unchanged")
        return False
    return True


def _write_hooks(
    edits: FileEdits, path: Path, hooks: list[tuple[str, dict[str, Any]]], *, version: int | None = None
) -> None:
    """Append the kit's hooks to the existing ones, and remove those that an earlier version wrote."""
    text = _read_text(path) if path.exists() else ""
    try:
        if text.strip("\ufeff \t\r\n"):
            existing = jsonc.read_value(text, ("hooks",)) or {}
            ours = [(event, item) for event, items in existing.items() for item in items if _is_our_hook(item)]
            if sorted(map(repr, ours)) == sorted(map(repr, hooks)):
                _write_text(edits, path, text)
                return
            for event in dict.fromkeys(event for event, _ in ours):
                text = _remove_our_hooks(text, ("hooks", event))
        if version is not None and (not text.strip() or jsonc.read_value(text, ("version",)) is None):
            text = jsonc.set_value(text, ("version",), version)
        for event, item in hooks:
            text = jsonc.append_item(text, ("hooks", event), item)
        _write_text(edits, path, text)
    except (jsonc.NotJsonError, AttributeError, TypeError) as error:
        edits.messages.append(f"! {path}: {error}; left unchanged")


def _remove_our_hooks(text: str, path: tuple[str, ...]) -> str:
    items = jsonc.read_value(text, path)
    for index in range(len(items) - 1, -1, -1) if isinstance(items, list) else ():
        if _is_our_hook(items[index]):
            text = jsonc.remove_value(text, path, index)
    return text


def _is_our_hook(item: Any) -> bool:
    # The commands of earlier versions name .llm-bus in place of llm-bus.
    return "llm-bus" in repr(item) and "runpy" in repr(item)


def _is_our_input(entry: Any) -> bool:
    return isinstance(entry, dict) and entry.get("id") == f"{SERVER_NAME}-token"


def _write_toml_server(options: InstallOptions, edits: FileEdits, path: Path) -> None:
    """Append the server table between two markers; a table of that name without them belongs to the user."""
    text = _read_text(path) if path.exists() else ""
    user_text = _TOML_BLOCK.sub("", text)
    if _TOML_SERVER_TABLE.search(user_text):
        edits.messages.append(f"= {path.name} already has mcp_servers.{SERVER_NAME}, or an inline table of servers")
        return
    newline = "\r\n" if "\r\n" in text else "\n"
    block = (
        f"{TOML_BEGIN}\n[mcp_servers.{SERVER_NAME}]\nurl = {_quote_toml(options.endpoint)}\n"
        f"bearer_token_env_var = {_quote_toml(options.token_variable)}\n{TOML_END}\n"
    )
    gap = "" if not user_text else newline if user_text.endswith("\n") else newline * 2
    _write_text(edits, path, user_text + gap + block.replace("\n", newline))


def _quote_toml(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _read_value_or_none(text: str, path: tuple[str, ...]) -> Any:
    try:
        return jsonc.read_value(text, path)
    except jsonc.NotJsonError:
        return None


def _read_text(path: Path) -> str:
    return path.read_bytes().decode("utf-8")


def _write_text(edits: FileEdits, path: Path, text: str) -> None:
    edits.write(path, text.encode("utf-8"), remove_our_entries)


def is_windows() -> bool:
    """Whether this is Windows, where the shell sets environment variables differently."""
    return os.name == "nt"
