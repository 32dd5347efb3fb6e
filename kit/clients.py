"""The configuration of each client, in its own format and place; the token itself is never in it."""

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
from kit.file_edits import Edits
from kit.repo import Repo

SERVER = "llm-bus"
# Whichever shell a client uses, and if it uses none: no quoting but this, no variable, no path. It finds the kit above
# the folder that it is started in, and ends with 0 where there is none.
LAUNCH = (
    "import os,pathlib as p,runpy;d=p.Path(os.environ.get('CLAUDE_PROJECT_DIR')or os.getcwd());"
    "k=[a/'.llm-bus'/'kit' for a in [d,*d.parents] if (a/'.llm-bus'/'kit'/'__main__.py').is_file()];"
    "k and runpy.run_path(str(k[0]),run_name='__main__')"
)
TOML_BEGIN, TOML_END = "# >>> llm-bus >>>", "# <<< llm-bus <<<"
_TOML_BLOCK = re.compile(rf"\n?{re.escape(TOML_BEGIN)}.*?{re.escape(TOML_END)}\r?\n", re.DOTALL)
_TOML_OURS = re.compile(r'^\s*\[\s*mcp_servers\s*\.\s*(?:llm-bus|"llm-bus")\s*\]|^\s*mcp_servers\s*=', re.MULTILINE)


@dataclass(frozen=True)
class Wanted:
    """What the installer was asked for."""

    repo: Repo
    home: Path
    endpoint: str
    variable: str
    wake: bool
    force: bool


@dataclass(frozen=True)
class Client:
    """A client: how it is recognised, what is written for it, where it reads its instructions."""

    name: str
    title: str
    programs: tuple[str, ...]
    in_repo: tuple[str, ...]
    in_home: tuple[str, ...]
    write: Callable[[Wanted, Edits], None]
    instructions: str

    def present(self, wanted: Wanted) -> bool:
        """Whether this client is used here: on the path, in the repository, or in the user's home."""
        return (
            any((wanted.repo.top / name).exists() for name in self.in_repo)
            or any((wanted.home / name).exists() for name in self.in_home)
            or any(shutil.which(program) for program in self.programs)
        )


def command(*words: str) -> str:
    """The line that runs the kit from a client's hook."""
    python = "python" if sys.platform == "win32" else "python3"
    return f'{python} -c "{LAUNCH}" {" ".join(words)}'


def _bearer(reference: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {reference}"}


def _claude(wanted: Wanted, edits: Edits) -> None:
    top = wanted.repo.top
    server = {"type": "http", "url": wanted.endpoint, "headers": _bearer(f"${{{wanted.variable}}}")}
    _server(wanted, edits, top / ".mcp.json", ("mcpServers", SERVER), server, "url")
    hooks: list[tuple[str, dict[str, Any]]] = [
        ("SessionStart", {"hooks": [_hook("wake start claude", 10)]}),
        ("Stop", {"hooks": [_hook("wake stop claude", 10)]}),
        ("PostToolUse", {"matcher": "Write|Edit|MultiEdit", "hooks": [_hook("reconcile --claude", 10)]}),
    ]
    if wanted.wake:
        rewake = {**_hook("wake wait claude", 3600), "async": True, "asyncRewake": True}
        hooks.append(("Stop", {"hooks": [rewake]}))
    _hooks(edits, top / ".claude" / "settings.json", hooks)


def _codex(wanted: Wanted, edits: Edits) -> None:
    folder = wanted.repo.top / ".codex"
    _toml(wanted, edits, folder / "config.toml")
    _hooks(
        edits,
        folder / "hooks.json",
        [
            ("SessionStart", {"hooks": [_hook("wake start codex", 10)]}),
            ("Stop", {"hooks": [_hook("wake stop codex", 10)]}),
        ],
    )


def _gemini(wanted: Wanted, edits: Edits) -> None:
    path = wanted.repo.top / ".gemini" / "settings.json"
    server = {"httpUrl": wanted.endpoint, "headers": _bearer(f"${{{wanted.variable}}}")}
    _server(wanted, edits, path, ("mcpServers", SERVER), server, "httpUrl")
    # Its timeouts are milliseconds.
    _hooks(
        edits,
        path,
        [
            ("SessionStart", {"hooks": [{"name": SERVER, **_hook("wake start gemini", 10_000)}]}),
            ("AfterAgent", {"hooks": [{"name": SERVER, **_hook("wake stop gemini", 10_000)}]}),
        ],
    )


def _cursor(wanted: Wanted, edits: Edits) -> None:
    folder = wanted.repo.top / ".cursor"
    server = {"url": wanted.endpoint, "headers": _bearer(f"${{env:{wanted.variable}}}")}
    _server(wanted, edits, folder / "mcp.json", ("mcpServers", SERVER), server, "url")
    _hooks(
        edits,
        folder / "hooks.json",
        [
            ("sessionStart", {"command": command("wake start cursor"), "timeout": 10}),
            ("stop", {"command": command("wake stop cursor"), "timeout": 10, "loop_limit": 1}),
        ],
        version=1,
    )


def _vscode(wanted: Wanted, edits: Edits) -> None:
    path = wanted.repo.top / ".vscode" / "mcp.json"
    server = {"type": "http", "url": wanted.endpoint, "headers": _bearer(f"${{input:{SERVER}-token}}")}
    if not _server(wanted, edits, path, ("servers", SERVER), server, "url"):
        return
    asked = {"type": "promptString", "id": f"{SERVER}-token", "description": "LLM Bus token", "password": True}
    text = _text(path) if path.exists() else ""
    found = jsonc.read(text, ("inputs",)) if text else None
    if not isinstance(found, list) or not any(isinstance(one, dict) and one.get("id") == asked["id"] for one in found):
        _write(edits, path, jsonc.append(text, ("inputs",), asked))


def _opencode(wanted: Wanted, edits: Edits) -> None:
    top = wanted.repo.top
    path = next((top / name for name in ("opencode.jsonc", "opencode.json") if (top / name).exists()), None)
    path = path or top / "opencode.json"
    text = _text(path) if path.exists() else '{\n  "$schema": "https://opencode.ai/config.json"\n}\n'
    server: dict[str, Any] = {"type": "remote", "url": wanted.endpoint}
    headers = {"oauth": False, "headers": _bearer(f"{{env:{wanted.variable}}}")}
    # Its second version puts the servers one level deeper and knows no "enabled".
    deeper = isinstance(_read_quietly(text, ("mcp", "servers")), dict)
    if deeper:
        _server(wanted, edits, path, ("mcp", "servers", SERVER), {**server, **headers}, "url", text)
    else:
        _server(wanted, edits, path, ("mcp", SERVER), {**server, "enabled": True, **headers}, "url", text)


def _windsurf(wanted: Wanted, edits: Edits) -> None:
    # It reads no file of a project.
    path = wanted.home / ".codeium" / "windsurf" / "mcp_config.json"
    server = {"serverUrl": wanted.endpoint, "headers": _bearer(f"${{env:{wanted.variable}}}")}
    _server(wanted, edits, path, ("mcpServers", SERVER), server, "serverUrl")


CLIENTS = (
    Client(
        "claude", "Claude Code", ("claude",), (".claude", ".mcp.json", "CLAUDE.md"), (".claude",), _claude, "CLAUDE.md"
    ),
    Client("codex", "Codex", ("codex",), (".codex",), (".codex",), _codex, "AGENTS.md"),
    Client("gemini", "Gemini CLI", ("gemini",), (".gemini", "GEMINI.md"), (".gemini",), _gemini, "GEMINI.md"),
    Client("cursor", "Cursor", ("cursor",), (".cursor",), (".cursor",), _cursor, "AGENTS.md"),
    Client("vscode", "VS Code", ("code",), (".vscode",), (".vscode",), _vscode, "AGENTS.md"),
    Client(
        "opencode",
        "OpenCode",
        ("opencode",),
        ("opencode.json", "opencode.jsonc", ".opencode"),
        (".config/opencode",),
        _opencode,
        "AGENTS.md",
    ),
    Client("windsurf", "Windsurf", ("windsurf",), (".windsurf",), (".codeium/windsurf",), _windsurf, "AGENTS.md"),
)


def strip(held: bytes) -> bytes | None:
    """A client's configuration without our part."""
    text = held.decode("utf-8")
    if TOML_BEGIN in text:
        return _TOML_BLOCK.sub("", text).encode("utf-8")
    for path in (("mcpServers", SERVER), ("servers", SERVER), ("mcp", "servers", SERVER), ("mcp", SERVER)):
        text = jsonc.remove(text, path)
    hooks = jsonc.read(text, ("hooks",))
    for event in hooks if isinstance(hooks, dict) else ():
        text = _without_ours(text, ("hooks", event))
    inputs = jsonc.read(text, ("inputs",))
    for at in range(len(inputs) - 1, -1, -1) if isinstance(inputs, list) else ():
        if isinstance(inputs[at], dict) and inputs[at].get("id") == f"{SERVER}-token":
            text = jsonc.remove(text, ("inputs",), at)
    return text.encode("utf-8")


def _hook(words: str, timeout: int) -> dict[str, Any]:
    return {"type": "command", "command": command(words), "timeout": timeout}


def _server(
    wanted: Wanted,
    edits: Edits,
    path: Path,
    keys: tuple[str, ...],
    server: dict[str, Any],
    address: str,
    text: str | None = None,
) -> bool:
    """Write our server, unless somebody wrote one of that name himself. Returns whether ours stands there."""
    text = text if text is not None else _text(path) if path.exists() else ""
    try:
        found = jsonc.read(text, keys) if text.strip("\ufeff \t\r\n") else None
        if found is not None and found != server and not edits.ours(path) and not wanted.force:
            where = found.get(address) if isinstance(found, dict) else None
            edits.said.append(f"= {path.name} has its own {SERVER} ({where}); --force replaces it")
            return False
        _write(edits, path, jsonc.put(text, keys, server))
    except jsonc.NotJsonError as error:
        edits.said.append(f"! {path}: {error}; left as it is")
        return False
    return True


def _hooks(edits: Edits, path: Path, hooks: list[tuple[str, dict[str, Any]]], *, version: int | None = None) -> None:
    """Put our hooks behind those that are there, in place of our own of an earlier time."""
    text = _text(path) if path.exists() else ""
    try:
        if text.strip("\ufeff \t\r\n"):
            held = [(event, item) for event, found in (jsonc.read(text, ("hooks",)) or {}).items() for item in found]
            ours = [(event, item) for event, item in held if _is_ours(item)]
            if sorted(map(repr, ours)) == sorted(map(repr, hooks)):
                _write(edits, path, text)
                return
            for event in dict.fromkeys(event for event, _ in ours):
                text = _without_ours(text, ("hooks", event))
        if version is not None and (not text.strip() or jsonc.read(text, ("version",)) is None):
            text = jsonc.put(text, ("version",), version)
        for event, item in hooks:
            text = jsonc.append(text, ("hooks", event), item)
        _write(edits, path, text)
    except (jsonc.NotJsonError, AttributeError, TypeError) as error:
        edits.said.append(f"! {path}: {error}; left as it is")


def _without_ours(text: str, path: tuple[str, ...]) -> str:
    found = jsonc.read(text, path)
    for at in range(len(found) - 1, -1, -1) if isinstance(found, list) else ():
        if _is_ours(found[at]):
            text = jsonc.remove(text, path, at)
    return text


def _is_ours(item: Any) -> bool:
    return ".llm-bus" in repr(item) and "runpy" in repr(item)


def _toml(wanted: Wanted, edits: Edits, path: Path) -> None:
    """Append our table, between marks; a table of that name that is not between them is somebody's own."""
    text = _text(path) if path.exists() else ""
    clean = _TOML_BLOCK.sub("", text)
    if _TOML_OURS.search(clean):
        edits.said.append(f"= {path.name} has its own mcp_servers.{SERVER}, or an inline table of servers")
        return
    ending = "\r\n" if "\r\n" in text else "\n"
    block = (
        f"{TOML_BEGIN}\n[mcp_servers.{SERVER}]\nurl = {_toml_string(wanted.endpoint)}\n"
        f"bearer_token_env_var = {_toml_string(wanted.variable)}\n{TOML_END}\n"
    )
    gap = "" if not clean else ending if clean.endswith("\n") else ending * 2
    _write(edits, path, clean + gap + block.replace("\n", ending))


def _toml_string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _read_quietly(text: str, path: tuple[str, ...]) -> Any:
    try:
        return jsonc.read(text, path)
    except jsonc.NotJsonError:
        return None


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8")


def _write(edits: Edits, path: Path, text: str) -> None:
    edits.write(path, text.encode("utf-8"), strip)


def windows() -> bool:
    """Whether this is Windows, where variables are set in another way."""
    return os.name == "nt"
