"""The hooks around a tool of a client: the lease notice, the check of a written number, and the check of a commit.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit import activity_log, edit_notice, repo
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
# The shell of Gemini CLI switches off the hooks of git.
_SHELL_TOOLS = {"gemini": "run_shell_command"}


@dataclass(frozen=True)
class ToolCall:
    """A call of a client's tool.

    Attributes:
        folder: the client's current folder.
        paths: the files that the tool edits.
        command: the command of a shell without hooks of git; empty for another tool.
    """

    client: str
    session_hash: str
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
    call = _parse_call(client, hook_input)
    if call is None:
        return ""
    if call.command:
        verdict = _check_command(call) if event == "before" else Verdict(context=_take_note(call))
    elif event == "before":
        verdict = _check_leases(call, may_announce=client in _SHOW_BEFORE)
    else:
        notice = "" if client in _SHOW_BEFORE else _check_leases(call, may_announce=True).context
        verdict = Verdict(context="\n".join(filter(None, (notice, _check_numbers(call)))))
    return _format_output(event, client, verdict)


def _parse_call(client: str, hook_input: dict[str, Any]) -> ToolCall | None:
    """Read the files, or the command, of a call; None if there is nothing to check."""
    tool, tool_input = hook_input.get("tool_name"), hook_input.get("tool_input")
    if not isinstance(tool_input, dict):
        return None
    folder = Path(str(hook_input.get("cwd") or os.getcwd()))
    session_hash = _hash(client, hook_input.get("session_id"))
    if tool == _SHELL_TOOLS.get(client):
        command, subfolder = tool_input.get("command"), tool_input.get("dir_path") or tool_input.get("directory")
        if not isinstance(command, str) or not ("git" in command and "commit" in command):
            return None
        return ToolCall(client, session_hash, folder / str(subfolder or ""), [], command)
    names = [tool_input[key] for key in _PATH_KEYS if isinstance(tool_input.get(key), str)]
    if tool in _PATCH_TOOLS:
        texts = [tool_input[key] for key in _PATCH_KEYS if isinstance(tool_input.get(key), str)]
        names += [name for text in texts for name in _PATCHED_FILE.findall(text)][:_MAX_PATCHED_FILES]
    paths = [folder / name for name in dict.fromkeys(names) if name and "\0" not in name]
    return ToolCall(client, session_hash, folder, paths, "") if paths else None


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
    leased = edit_notice.find_leased(work_tree, config, names)
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
    """Check the numbers of files that were just written; Claude Code has a hook of its own for that."""
    if call.client == "claude":
        return ""
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


def _format_output(event: str, client: str, verdict: Verdict) -> str:
    """Format a verdict as the output that a client expects; empty for none."""
    output: dict[str, Any] = {}
    if client == "opencode":
        output = {"refusal": verdict.refusal} if verdict.refusal else {"context": verdict.context}
    elif client == "gemini" and event == "before":
        output = {"decision": "deny", "reason": verdict.refusal} if verdict.refusal else {}
    elif verdict.refusal:
        decision = {"permissionDecision": "deny", "permissionDecisionReason": verdict.refusal}
        output = {"hookSpecificOutput": {"hookEventName": "PreToolUse", **decision}}
    elif verdict.context:
        name = "AfterTool" if client == "gemini" else "PreToolUse" if event == "before" else "PostToolUse"
        output = {"hookSpecificOutput": {"hookEventName": name, "additionalContext": verdict.context}}
    return json.dumps(output) if any(output.values()) else ""


def _hash(*values: Any) -> str:
    return hashlib.sha256("\0".join(map(str, values)).encode("utf-8", "surrogatepass")).hexdigest()[:16]
