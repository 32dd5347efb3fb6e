"""The hooks around a tool of a client: the lease notice, the checks of a written number and of a commit, and mail.

Claude Code and Codex show the context of a hook that runs before the tool. Gemini CLI and OpenCode show only what one
that runs after it adds to the result, so there the notice comes with the result; a refusal comes before, in all of
them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit import activity_log, edit_notice, quick, repo, session_key
from kit.config import ConfigError, load_config
from kit.repo import NoRepositoryError, Repo

CLIENTS = ("claude", "codex", "gemini", "opencode")
EVENTS = ("before", "after")
# The clients that show the model what a hook before the tool says.
_SHOW_BEFORE = ("claude", "codex")
_PATH_KEYS = ("file_path", "filePath", "notebook_path")
_PATCH_KEYS = ("command", "patchText", "input", "patch")
_PATCH_TOOLS = ("apply_patch", "patch")
_PATCHED_FILE = re.compile(r"^\*\*\* (?:(?:Add|Update|Delete) File|Move to): (.+?)[ \t\r]*$", re.MULTILINE)
_MAX_PATCHED_FILES = 50
_MAX_CHECKED_FILES = 3
# Of a look that a hook waits for, beyond what the quick part allows, and of one in the background.
_LOOK_SECONDS = 1.0
_BACKGROUND_LOOK_SECONDS = 5.0
_FAILURE_EVENT = "PostToolUseFailure"
_CLAUDE_BUS_TOOLS = "mcp__llm-bus__"
# The shell of Gemini CLI switches off the hooks of git.
_SHELL_TOOLS = {"gemini": "run_shell_command"}


@dataclass(frozen=True)
class ToolCall:
    """A call of a client's tool.

    Attributes:
        folder: the client's current folder.
        paths: the files that the tool edits.
        command: the command of a shell without hooks of git; empty for another tool.
        session_key: the session on the bus; None if the client's connection has none.
    """

    client: str
    session_hash: str
    session_key: str | None
    folder: Path
    paths: list[Path]
    command: str


@dataclass(frozen=True)
class Verdict:
    """What a hook says.

    Attributes:
        refusal: why the tool must not run; empty if it may.
        context: what the model is shown; empty for nothing.
    """

    refusal: str = ""
    context: str = ""


def run(event: str, client: str, hook_input: dict[str, Any]) -> str:
    """Run the hook before or after a tool. Returns its output for the client; empty for none."""
    if event == "before" and client == "claude" and str(hook_input.get("tool_name")).startswith(_CLAUDE_BUS_TOOLS):
        return _name_subagent(hook_input)
    # Of a tool that failed, only the client's name for the event differs.
    has_failed = hook_input.get("hook_event_name") == _FAILURE_EVENT
    call = None if has_failed else _parse_call(client, hook_input)
    verdict = Verdict() if call is None else _check_call(event, client, call)
    if event == "after" and not hook_input.get("agent_id"):
        mail = _find_mail(client, hook_input)
        verdict = Verdict(verdict.refusal, "\n".join(filter(None, (verdict.context, mail))))
    return _format_output(event, client, verdict, _FAILURE_EVENT if has_failed else "PostToolUse")


def look_in_background(client: str, session_id: str) -> None:
    """Look for mail without a hook that waits for it, and keep what is found for the next one."""
    from kit import session_file

    text = _look(client, {"session_id": session_id, "cwd": os.getcwd()}, _BACKGROUND_LOOK_SECONDS)
    if text:
        session_file.keep_mail(client, session_id, text)


def _check_call(event: str, client: str, call: ToolCall) -> Verdict:
    if call.command:
        return _check_command(call) if event == "before" else Verdict(context=_take_note(call))
    if event == "before":
        return _check_leases(call, may_announce=client in _SHOW_BEFORE)
    notice = "" if client in _SHOW_BEFORE else _check_leases(call, may_announce=True).context
    return Verdict(context="\n".join(filter(None, (notice, _check_numbers(call)))))


def _name_subagent(hook_input: dict[str, Any]) -> str:
    """Add the session of a subagent to its call of the bus, since it shares the connection of its parent."""
    key, tool_input = session_key.find_key("claude", hook_input), hook_input.get("tool_input")
    if key is None or not hook_input.get("agent_id") or not isinstance(tool_input, dict):
        return ""
    output = {"hookEventName": "PreToolUse", "updatedInput": {**tool_input, "_session": key}}
    return json.dumps({"hookSpecificOutput": output})


def _find_mail(client: str, hook_input: dict[str, Any]) -> str:
    """Return the line about mail that the session was not shown; empty for none, or if it is too early to look."""
    session_id = str(hook_input.get("session_id") or "")
    if not quick.is_plain(session_id):
        return ""
    expected = quick.is_mail_expected
    if not (quick.expects_mail(client, session_id) if expected is None else expected):
        return ""
    from kit import session_file

    kept = session_file.take_mail(client, session_id)
    return kept or _look(client, hook_input, _LOOK_SECONDS)


def _look(client: str, hook_input: dict[str, Any], seconds: float) -> str:
    """Ask the bus for posts that the session was not shown, and keep how long that took."""
    from kit import mcp_client, session_file, session_hooks, session_texts

    session_id = str(hook_input["session_id"])
    session = session_hooks.find_session(client, hook_input)
    if session is None:
        session_file.switch_off(client, session_id)
        return ""
    started_at = time.monotonic()
    (answer,) = session.call([lambda bus: session.look(bus, "hooks")], mcp_client.TimeBudget(seconds))
    # The quick part can ask a bus without encryption; otherwise a look takes as long as this process until now.
    is_quick = session.key is not None and session.config.endpoint.startswith("http://")
    taken = time.monotonic() - (started_at - quick.START_SECONDS if is_quick else quick.STARTED_AT)
    session_file.write(session.repo, session.config, client, session_id, session.key or "", taken)
    if isinstance(answer, Exception):
        if getattr(answer, "status", None) in (401, 403):
            session_file.switch_off(client, session_id)
        return ""
    posts, count = answer
    return session_texts.format_mail(posts, count) if posts else ""


def _parse_call(client: str, hook_input: dict[str, Any]) -> ToolCall | None:
    """Read the files, or the command, of a call; None if there is nothing to check."""
    tool, tool_input = hook_input.get("tool_name"), hook_input.get("tool_input")
    if not isinstance(tool_input, dict):
        return None
    folder = Path(str(hook_input.get("cwd") or os.getcwd()))
    session_hash = _hash(client, hook_input.get("session_id"))
    bus_key = session_key.find_key(client, hook_input)
    if tool == _SHELL_TOOLS.get(client):
        command, subfolder = tool_input.get("command"), tool_input.get("dir_path") or tool_input.get("directory")
        if not isinstance(command, str) or not ("git" in command and "commit" in command):
            return None
        return ToolCall(client, session_hash, bus_key, folder / str(subfolder or ""), [], command)
    names = [tool_input[key] for key in _PATH_KEYS if isinstance(tool_input.get(key), str)]
    if tool in _PATCH_TOOLS:
        texts = [tool_input[key] for key in _PATCH_KEYS if isinstance(tool_input.get(key), str)]
        names += [name for text in texts for name in _PATCHED_FILE.findall(text)][:_MAX_PATCHED_FILES]
    paths = [folder / name for name in dict.fromkeys(names) if name and "\0" not in name]
    return ToolCall(client, session_hash, bus_key, folder, paths, "") if paths else None


def _check_leases(call: ToolCall, *, may_announce: bool) -> Verdict:
    """Find the leases of other participants; those under the policy "strict" refuse the edit.

    Args:
        may_announce: whether the model is shown the context.
    """
    work_tree, names = _locate(call.paths)
    if work_tree is None:
        return Verdict()
    try:
        config = load_config(work_tree)
    except ConfigError:
        # A clone that is not connected; a faulty configuration is reported at the commit.
        return Verdict()
    leased = edit_notice.find_leased(work_tree, config, names, call.session_key)
    strict = [(path, lease) for path, lease in leased if config.lease_policy(path) == "strict"]
    if strict and os.environ.get("LLM_BUS_OVERRIDE") != "1":
        activity_log.record(work_tree, "blocked", messages=[f"an edit of {path}" for path, _ in strict])
        return Verdict(
            f"{edit_notice.format_notice(strict)}\nThis repository blocks edits of these files while others hold them."
        )
    if not may_announce:
        return Verdict()
    return Verdict("", edit_notice.format_notice(edit_notice.take_unannounced(work_tree, call.session_hash, leased)))


def _check_numbers(call: ToolCall) -> str:
    """Check the numbers of files that were just written."""
    # Slow to import, and needed for governed files alone.
    from kit import precommit

    messages: list[str] = []
    for path in call.paths[:_MAX_CHECKED_FILES]:
        result = precommit.check_file(path)
        messages += [*result.notes, *result.blocking] if result else []
    return "LLM Bus: " + "\n".join(messages) if messages else ""


def _check_command(call: ToolCall) -> Verdict:
    """Check the commit of a command; what does not refuse it is kept until the command has run."""
    from kit import precommit

    result = precommit.check_command(call.command, call.folder)
    if result is None:
        return Verdict()
    if result.blocking:
        text = "\n".join([*result.blocking, *result.notes])
        return Verdict(
            f"LLM Bus: {text}\nThe commit was blocked. Set {precommit.OVERRIDE_VARIABLE}=1 before git to commit anyway."
        )
    path = _note_path(call)
    if result.notes and path is not None:
        with contextlib.suppress(OSError):
            path.write_text("LLM Bus: " + "\n".join(result.notes), "utf-8", "backslashreplace")
    return Verdict()


def _take_note(call: ToolCall) -> str:
    """Return what the check before the command kept, and delete it."""
    path = _note_path(call)
    try:
        if path is None or not path.exists():
            return ""
        text = path.read_text("utf-8")
        path.unlink()
    except OSError:
        return ""
    return text


def _note_path(call: ToolCall) -> Path | None:
    try:
        folder = activity_log.ensure_state_folder(repo.get_repo(call.folder))
    except (NoRepositoryError, OSError):
        return None
    return folder / f"note-{call.session_hash}-{_hash(call.command)}"


def _locate(paths: list[Path]) -> tuple[Repo | None, list[str]]:
    """Find the work tree of the first file, and the names of the files in it; the others are left out."""
    folder = next((parent for parent in paths[0].parents if parent.is_dir()), None)
    try:
        work_tree = repo.get_repo(folder)
    except (NoRepositoryError, OSError):
        return None, []
    top = os.path.realpath(work_tree.top)
    names = []
    for path in paths:
        with contextlib.suppress(ValueError, OSError):
            # The file itself may be a link, which an edit follows and a commit names.
            names.append(Path(os.path.realpath(path.parent), path.name).relative_to(top).as_posix())
    return work_tree, [name for name in names if not name.startswith(".git/")]


def _format_output(event: str, client: str, verdict: Verdict, after: str) -> str:
    """Format a verdict as the output that a client expects; empty for none.

    Args:
        after: the name of the event after a tool, for Claude Code and Codex.
    """
    output: dict[str, Any] = {}
    if client == "opencode":
        output = {"refusal": verdict.refusal} if verdict.refusal else {"context": verdict.context}
    elif client == "gemini" and event == "before":
        output = {"decision": "deny", "reason": verdict.refusal} if verdict.refusal else {}
    elif verdict.refusal:
        decision = {"permissionDecision": "deny", "permissionDecisionReason": verdict.refusal}
        output = {"hookSpecificOutput": {"hookEventName": "PreToolUse", **decision}}
    elif verdict.context:
        name = "AfterTool" if client == "gemini" else "PreToolUse" if event == "before" else after
        output = {"hookSpecificOutput": {"hookEventName": name, "additionalContext": verdict.context}}
    return json.dumps(output) if any(output.values()) else ""


def _hash(*values: Any) -> str:
    return hashlib.sha256("\0".join(map(str, values)).encode("utf-8", "surrogatepass")).hexdigest()[:16]
