"""The part of the hooks around a tool that runs at every call of a tool, in a few milliseconds.

It imports almost nothing: it reads the text of the client's input instead of parsing it, and the file of the session
(`session_file`) instead of the configuration. Whatever needs more is left to the other modules, which are imported
then. At most once in 20 seconds it asks the bus whether there is mail that this session has not been shown.
"""

from __future__ import annotations

import os
import sys
import time

LOOK_SECONDS = 20.0
# For tests and for clients that are measured.
LOOK_SECONDS_VARIABLE = "LLM_BUS_LOOK_SECONDS"
# What a look may take: more only where it is a small share of the time since the last tool, such as after a long
# command. A bus that takes longer is asked in the background, and the next hook shows the answer.
_MIN_LOOK_SECONDS = 0.06
_MAX_LOOK_SECONDS = 0.3
_LOOK_SHARE = 0.01
_OFF_SECONDS = 600.0
_STDIN_SECONDS = 1.0
_MAX_ID_LENGTH = 100
_MAX_ANSWER_BYTES = 65536
# Started hooks that read no configuration: the tools whose result or input the other modules check.
_CHECKED_AFTER = {
    "claude": ("Write", "Edit", "MultiEdit"),
    "codex": ("apply_patch",),
    "gemini": ("write_file", "replace", "run_shell_command"),
    "opencode": ("edit", "write", "multiedit", "patch", "apply_patch"),
}
_BUS_TOOLS = {"claude": "mcp__llm-bus__", "gemini": "mcp_llm-bus_"}
# What starting Python takes, about.
START_SECONDS = 0.02
STARTED_AT = time.monotonic()
# In a session's file: no bus to ask, and an encrypted connection, which takes other modules.
OFF = "off"
TLS = "tls"
# The input of the client, once it was read, and whether there is something to show or to find out, once that is known.
stdin: bytes | None = None
is_mail_expected: bool | None = None


def run(arguments: list[str]) -> bool:
    """Run a hook around a tool. Returns whether that was all; otherwise `main` runs the command."""
    global stdin, is_mail_expected
    if len(arguments) != 3 or arguments[0] != "tool" or os.name != "posix" or os.isatty(0):
        return False
    event, client = arguments[1:]
    stdin = _read_stdin()
    tool = _find_text(stdin, b'"tool_name"')
    session_id = _find_text(stdin, b'"session_id"')
    if client not in _CHECKED_AFTER or not tool or not is_plain(session_id):
        return False
    is_subagent = b'"agent_id"' in stdin
    if event == "before":
        return _name_session(client, tool, session_id, is_subagent)
    if event != "after" or tool in _CHECKED_AFTER[client]:
        return False
    is_mail_expected = not is_subagent and expects_mail(client, session_id)
    if not is_mail_expected:
        _print_nothing(client)
    return not is_mail_expected


def state_folder() -> str:
    """Return the folder of the sessions' files: beside the code, for all worktrees."""
    return os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "sessions")


def is_plain(session_id: str) -> bool:
    """Whether an identifier of a client can be a part of a file name, and of a key."""
    return 0 < len(session_id) <= _MAX_ID_LENGTH and session_id.replace("-", "").replace("_", "").isalnum()


def look_interval() -> float:
    """Return the seconds between two looks."""
    try:
        return float(os.environ[LOOK_SECONDS_VARIABLE])
    except (KeyError, ValueError):
        return LOOK_SECONDS


def _name_session(client: str, tool: str, session_id: str, is_subagent: bool) -> bool:
    """Add the session to a call of the bus, where the connection of the client does not say it."""
    if client not in _BUS_TOOLS or not tool.startswith(_BUS_TOOLS[client]):
        return False
    if client == "claude":
        # The header of the connection names the session, and only a subagent is another one.
        return not is_subagent
    import json

    try:
        tool_input = json.loads(stdin or b"")["tool_input"]
        # Although its documentation says that it merges them, Gemini CLI replaces all arguments.
        output = {"hookEventName": "BeforeTool", "tool_input": {**tool_input, "_session": session_id}}
    except (ValueError, KeyError, TypeError):
        return False
    print(json.dumps({"hookSpecificOutput": output}))
    return True


def expects_mail(client: str, session_id: str) -> bool:
    """Whether the other modules have something to show or to find out. Looks, if it is time to."""
    path = os.path.join(state_folder(), f"{client}-{session_id}")
    try:
        last_hook_at = os.stat(path + ".used").st_mtime
    except OSError:
        last_hook_at = 0.0
    _touch(path + ".used")
    if os.path.exists(path + ".mail"):
        return True
    try:
        with open(path, encoding="utf-8") as file:
            fields = file.read().split("\n")
        looked_at = os.stat(path).st_mtime
    except (OSError, ValueError):
        # A session that began before the hooks were there.
        return True
    now = time.time()
    if 0 <= now - looked_at < (_OFF_SECONDS if fields[0] == OFF else look_interval()):
        return False
    _touch(path)
    if fields[0] == OFF:
        return True
    since_last_hook = max(0.0, now - last_hook_at) if last_hook_at else 0.0
    limit = min(_MAX_LOOK_SECONDS, max(_MIN_LOOK_SECONDS, _LOOK_SHARE * since_last_hook))
    try:
        endpoint, address, key, variable, token_path, earlier = fields[:6]
        if float(earlier) <= limit:
            if address == TLS:
                return True
            unshown = _ask(endpoint, address, key, _find_token(variable, token_path), limit)
            if unshown is not None:
                return unshown > 0
    except (OSError, ValueError, IndexError):
        pass
    return not _look_in_background(client, session_id)


def _ask(endpoint: str, address: str, key: str, token: str, limit: float) -> int | None:
    """Ask the bus how many posts the session has not been shown. Returns None if it does not say it in time."""
    import _socket

    authority, _, path = endpoint.partition("://")[2].partition("/")
    if not token:
        return None
    host, port = address.rsplit(" ", 1)
    body = b'{"wake":"hooks","mail":true,"announce":false}'
    head = (
        f"POST /{path.rstrip('/')}/session HTTP/1.1\r\nHost: {authority}\r\nAuthorization: Bearer {token}\r\n"
        f"X-Bus-Session: {key}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        "Connection: close\r\n\r\n"
    )
    connection = _socket.socket(_socket.AF_INET6 if ":" in host else _socket.AF_INET, _socket.SOCK_STREAM)
    answer = b""
    deadline = max(time.monotonic() + 0.02, STARTED_AT + limit)
    try:
        connection.settimeout(max(0.01, deadline - time.monotonic()))
        connection.connect((host, int(port)))
        connection.sendall(head.encode("ascii") + body)
        while len(answer) < _MAX_ANSWER_BYTES:
            connection.settimeout(max(0.01, deadline - time.monotonic()))
            chunk = connection.recv(_MAX_ANSWER_BYTES)
            if not chunk:
                break
            answer += chunk
    finally:
        connection.close()
    if answer[9:12] != b"200":
        return None
    digits = answer.partition(b'"unshown":')[2].lstrip()
    count = digits[: len(digits) - len(digits.lstrip(b"0123456789"))]
    return int(count) if count else None


def _find_token(variable: str, path: str) -> str:
    """Return the token as the configuration finds it; empty for none."""
    from kit.token_format import is_well_formed

    token = os.environ.get(variable, "").strip()
    if not is_well_formed(token):
        token = ""
        if path:
            with open(path, encoding="ascii") as file:
                token = file.read().strip()
    return token if is_well_formed(token) else ""


def _look_in_background(client: str, session_id: str) -> bool:
    """Start a look that takes longer; the next hook shows what it finds. Returns whether it was started."""
    if not hasattr(os, "posix_spawn") or not sys.executable:
        return False
    nothing = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in range(3)]
    folder = os.path.dirname(os.path.abspath(__file__))
    command = [sys.executable, "-IS", folder, "tool", "look", client, session_id]
    os.posix_spawn(sys.executable, command, os.environ, file_actions=nothing)
    return True


def _touch(path: str) -> None:
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
        os.utime(path)
    except OSError:
        return


def _print_nothing(client: str) -> None:
    if client != "claude":
        # These clients parse the output as JSON, and some of them do not accept an empty one.
        print("{}")


def _read_stdin() -> bytes:
    """Read standard input, also if the client keeps it open."""
    import select

    chunks = []
    deadline = time.monotonic() + _STDIN_SECONDS
    while select.select([0], [], [], max(0.0, deadline - time.monotonic()))[0]:
        chunk = os.read(0, 65536)
        if not chunk:
            break
        chunks.append(chunk)
    return b"".join(chunks)


def _find_text(document: bytes, name: bytes) -> str:
    """Return the first text of a name in a JSON document; empty for none.

    The name inside a text of the document has backslashes before its quotes, so it is not found. That of a nested
    object may be: what is decided here is only whether a hook has to look closer.
    """
    rest = document.partition(name)[2].lstrip()
    if not rest.startswith(b":"):
        return ""
    value = rest[1:].lstrip()
    return value[1:].partition(b'"')[0].decode("ascii", "replace") if value.startswith(b'"') else ""
