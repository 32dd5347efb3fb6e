"""The configuration of each client, in its own format and place, without the token."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from kit.client_commands import hook_command
from kit.client_files import (
    RARE_TOOLS,
    SERVER_NAME,
    InstallOptions,
    read_json,
    write_hooks,
    write_prompt,
    write_server,
    write_toml_server,
)
from kit.client_plugins import OPENCODE_PLUGIN, write_opencode_plugin
from kit.file_edits import FileEdits


@dataclass(frozen=True)
class Client:
    """A client: how to detect it, how to configure it, and the file with its instructions.

    Attributes:
        first_question: what the client asks before it uses the kit's configuration; empty for nothing.
        reads_saved_token: whether its connection uses the token that is saved inside .git.
        sign_in: the command with which it signs in by OAuth; empty if it asks by itself.
        hides_rare_tools: whether the kit's configuration leaves RARE_TOOLS out, since it sends all with each request.
    """

    name: str
    title: str
    executables: tuple[str, ...]
    repo_markers: tuple[str, ...]
    home_markers: tuple[str, ...]
    configure: Callable[[InstallOptions, FileEdits], None]
    instructions_file: str
    first_question: str = ""
    reads_saved_token: bool = False
    sign_in: str = ""
    hides_rare_tools: bool = False

    def is_present(self, options: InstallOptions) -> bool:
        """Whether the client is used here: on the PATH, in the repository, or in the user's home folder."""
        return (
            any((options.repo.top / name).exists() for name in self.repo_markers)
            or any((options.home_dir / name).exists() for name in self.home_markers)
            or any(shutil.which(program) for program in self.executables)
        )


def _authorization(options: InstallOptions, reference: str) -> dict[str, Any]:
    """Return the setting of a server that sends the token; empty for a client that signs in."""
    return {} if options.signs_in else {"headers": {"Authorization": f"Bearer {reference}"}}


def _configure_claude(options: InstallOptions, edits: FileEdits) -> None:
    top = options.repo.top
    server = {
        "type": "http",
        "url": options.endpoint,
        # The helper adds the session, and a saved token. An empty default keeps Claude Code from refusing the server.
        **_authorization(options, f"${{{options.token_variable}:-}}"),
        "headersHelper": hook_command("headers claude"),
    }
    write_server(options, edits, top / ".mcp.json", ("mcpServers", SERVER_NAME), server, "url")
    edited = f"Edit|Write|MultiEdit|NotebookEdit|mcp__{SERVER_NAME}__.*"
    hooks: list[tuple[str, dict[str, Any]]] = [
        ("SessionStart", {"hooks": [_make_hook("wake start claude", 10)]}),
        ("SessionEnd", {"hooks": [_make_hook("wake end claude", 10)]}),
        ("Stop", {"hooks": [_make_hook("wake stop claude", 10)]}),
        ("SubagentStop", {"hooks": [_make_hook("wake end claude", 10)]}),
        ("PreToolUse", {"matcher": edited, "hooks": [_make_hook("tool before claude", 10)]}),
        ("PostToolUse", {"hooks": [_make_hook("tool after claude", 10)]}),
        # A command that fails is not followed by PostToolUse.
        ("PostToolUseFailure", {"hooks": [_make_hook("tool after claude", 10)]}),
    ]
    if options.wake_in_background:
        rewake = {**_make_hook("wake wait claude", 3600), "async": True, "asyncRewake": True}
        hooks.append(("Stop", {"hooks": [rewake]}))
    write_hooks(options, edits, top / ".claude" / "settings.json", hooks)


def _configure_codex(options: InstallOptions, edits: FileEdits) -> None:
    folder = options.repo.top / ".codex"
    # Codex runs the helper without the environment, so it needs a saved token.
    if options.signs_in:
        source = {}
    elif options.has_saved_token:
        source = {"http_headers_helper": hook_command("headers codex")}
    else:
        source = {"bearer_token_env_var": options.token_variable}
    write_toml_server(options, edits, folder / "config.toml", source)
    write_hooks(
        options,
        edits,
        folder / "hooks.json",
        [
            ("SessionStart", {"hooks": [_make_hook("wake start codex", 10)]}),
            ("SessionEnd", {"hooks": [_make_hook("wake end codex", 10)]}),
            ("Stop", {"hooks": [_make_hook("wake stop codex", 10)]}),
            ("SubagentStop", {"hooks": [_make_hook("wake end codex", 10)]}),
            ("PreToolUse", {"matcher": "apply_patch", "hooks": [_make_hook("tool before codex", 10)]}),
            ("PostToolUse", {"hooks": [_make_hook("tool after codex", 10)]}),
        ],
    )


def _configure_gemini(options: InstallOptions, edits: FileEdits) -> None:
    path = options.repo.top / ".gemini" / "settings.json"
    server: dict[str, Any] = {
        "httpUrl": options.endpoint,
        **_authorization(options, f"${{{options.token_variable}}}"),
        # It sends the definitions of all tools with each request, 200 bytes longer than they are.
        **({} if options.all_tools else {"excludeTools": list(RARE_TOOLS)}),
    }
    write_server(options, edits, path, ("mcpServers", SERVER_NAME), server, "httpUrl")
    # Its shell runs no hooks of git, so the hook before it checks commits.
    tools = f"write_file|replace|run_shell_command|mcp_{SERVER_NAME}_.*"
    # Gemini CLI counts timeouts in milliseconds.
    write_hooks(
        options,
        edits,
        path,
        [
            ("SessionStart", {"hooks": [{"name": SERVER_NAME, **_make_hook("wake start gemini", 10_000)}]}),
            ("SessionEnd", {"hooks": [{"name": SERVER_NAME, **_make_hook("wake end gemini", 10_000)}]}),
            ("AfterAgent", {"hooks": [{"name": SERVER_NAME, **_make_hook("wake stop gemini", 10_000)}]}),
            ("BeforeTool", _make_gemini_tool_hook("tool before gemini", tools)),
            ("AfterTool", _make_gemini_tool_hook("tool after gemini", "*")),
        ],
    )


def _configure_cursor(options: InstallOptions, edits: FileEdits) -> None:
    folder = options.repo.top / ".cursor"
    server = {"url": options.endpoint, **_authorization(options, f"${{env:{options.token_variable}}}")}
    write_server(options, edits, folder / "mcp.json", ("mcpServers", SERVER_NAME), server, "url")
    write_hooks(
        options,
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
    server = {"type": "http", "url": options.endpoint, **_authorization(options, f"${{input:{SERVER_NAME}-token}}")}
    if not write_server(options, edits, path, ("servers", SERVER_NAME), server, "url") or options.signs_in:
        return
    prompt = {"type": "promptString", "id": f"{SERVER_NAME}-token", "description": "LLM Bus token", "password": True}
    write_prompt(options, edits, path, prompt)


def _configure_opencode(options: InstallOptions, edits: FileEdits) -> None:
    top = options.repo.top
    path = next((top / name for name in ("opencode.jsonc", "opencode.json") if (top / name).exists()), None)
    path = path or top / "opencode.json"
    new_file = '{\n  "$schema": "https://opencode.ai/config.json"\n}\n'
    server: dict[str, Any] = {"type": "remote", "url": options.endpoint}
    headers = _authorization(options, f"{{env:{options.token_variable}}}")
    if not options.signs_in:
        headers["oauth"] = False
    # Version 2 of OpenCode nests the servers one level deeper and has no "enabled".
    if isinstance(read_json(edits, path, ("mcp", "servers")), dict):
        write_server(options, edits, path, ("mcp", "servers", SERVER_NAME), {**server, **headers}, "url")
    else:
        server = {**server, "enabled": True, **headers}
        write_server(options, edits, path, ("mcp", SERVER_NAME), server, "url", new_file)
    write_opencode_plugin(options, edits)


def _configure_windsurf(options: InstallOptions, edits: FileEdits) -> None:
    # Windsurf reads no file of a project.
    path = options.home_dir / WINDSURF_FILE
    server = {"serverUrl": options.endpoint, **_authorization(options, f"${{env:{options.token_variable}}}")}
    write_server(options, edits, path, ("mcpServers", SERVER_NAME), server, "serverUrl")


CLIENTS = (
    Client(
        "claude",
        "Claude Code",
        ("claude",),
        (".claude", ".mcp.json", "CLAUDE.md"),
        (".claude",),
        _configure_claude,
        "CLAUDE.md",
        "Claude Code asks whether you trust this folder, and whether to use the server llm-bus: until both, it starts "
        "neither hooks nor the server.",
        reads_saved_token=True,
        sign_in=f"claude mcp login {SERVER_NAME}",
    ),
    Client(
        "codex",
        "Codex",
        ("codex",),
        (".codex",),
        (".codex",),
        _configure_codex,
        "AGENTS.md",
        "Codex reads .codex/ once you trust this folder, and asks before it runs the hooks.",
        reads_saved_token=True,
        sign_in=f"codex mcp login {SERVER_NAME}",
    ),
    Client(
        "gemini",
        "Gemini CLI",
        ("gemini",),
        (".gemini", "GEMINI.md"),
        (".gemini",),
        _configure_gemini,
        "GEMINI.md",
        "Gemini CLI asks whether you trust this folder, and warns of new hooks of a project once.",
        sign_in=f"/mcp auth {SERVER_NAME}, in a session",
        hides_rare_tools=True,
    ),
    Client("cursor", "Cursor", ("cursor",), (".cursor",), (".cursor",), _configure_cursor, "AGENTS.md"),
    Client(
        "vscode",
        "VS Code",
        ("code",),
        (".vscode",),
        (".vscode",),
        _configure_vscode,
        "AGENTS.md",
        "VS Code asks for the token and stores it.",
    ),
    Client(
        "opencode",
        "OpenCode",
        ("opencode",),
        ("opencode.json", "opencode.jsonc", ".opencode"),
        (".config/opencode",),
        _configure_opencode,
        "AGENTS.md",
        reads_saved_token=True,
        sign_in=f"opencode mcp auth {SERVER_NAME}",
        hides_rare_tools=True,
    ),
    Client(
        "windsurf", "Windsurf", ("windsurf",), (".windsurf",), (".codeium/windsurf",), _configure_windsurf, "AGENTS.md"
    ),
)


# In the home folder.
WINDSURF_FILE = ".codeium/windsurf/mcp_config.json"
# The files of a work tree that are configured, for an uninstallation without a record.
CONFIGURED_FILES = (
    ".mcp.json",
    ".claude/settings.json",
    ".codex/config.toml",
    ".codex/hooks.json",
    ".gemini/settings.json",
    ".cursor/mcp.json",
    ".cursor/hooks.json",
    ".vscode/mcp.json",
    "opencode.json",
    "opencode.jsonc",
    OPENCODE_PLUGIN,
)


def _make_hook(arguments: str, timeout: int) -> dict[str, Any]:
    return {"type": "command", "command": hook_command(arguments), "timeout": timeout}


def _make_gemini_tool_hook(arguments: str, matcher: str) -> dict[str, Any]:
    return {"matcher": matcher, "hooks": [{"name": SERVER_NAME, **_make_hook(arguments, 10_000)}]}


def is_windows() -> bool:
    """Whether this is Windows, where the shell sets environment variables differently."""
    return os.name == "nt"
