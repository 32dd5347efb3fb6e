"""The session hooks: a greeting at the start, a reminder of posts at the stop, a wait in the background, and the end.

Each session is shown each post once, so the stop hook never loops. The bus knows what a session with a key was shown;
for one without, files inside .git do. Without new posts the hooks print nothing, so they cost no turn.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit import (
    VERSION,
    activity_log,
    githooks,
    local_code,
    mcp_client,
    precommit,
    repo,
    session_file,
    session_key,
    session_texts,
)
from kit.config import Config, ConfigError, load_config
from kit.repo import NoRepositoryError, Repo
from kit.session_texts import sanitize

CLIENTS = ("claude", "codex", "gemini", "cursor", "opencode")
EVENTS = ("start", "stop", "wait", "end")
# Shorter than the timeout of the hook in the client's configuration.
_MAX_WAIT_SECONDS = 3300
_LONG_POLL_SECONDS = 50
# Between two calls of wait_for, which returns at once where posts are unacknowledged and the session has no key.
_POLL_PAUSE_SECONDS = 15
_KEYED_PAUSE_SECONDS = 1
_STOP_HOOK_HEAD_START_SECONDS = 3
_END_SECONDS = 1.5
_STATE_MAX_AGE_SECONDS = 7 * 86400
# Announced posts and leases, waits, and notes between two hooks.
_STATE_FILES = ("told-*", "leased-*", "wait-*", "note-*")
_INSTALL_COMMAND = "python3 .git/llm-bus/kit install"


@dataclass(frozen=True)
class Session:
    """A session of a client in a connected repository.

    Attributes:
        session_id: the client's name of it.
        key: its name on the bus; None if its MCP connection has none.
    """

    repo: Repo
    config: Config
    client: str
    session_id: str
    session_hash: str
    key: str | None

    def call(self, calls: list[mcp_client.BusCall], budget: mcp_client.TimeBudget) -> list[Any]:
        """Run calls for this session, in parallel; the result or the exception of each."""
        return mcp_client.call_in_parallel(self.config.endpoint, self.config.token, calls, budget, session_key=self.key)

    def look(self, bus: mcp_client.BusClient, wake: str | None) -> tuple[list[dict[str, Any]], int]:
        """Fetch posts that this session was not shown, and mark them as shown. Returns them, and how many there are.

        Args:
            wake: how the session is shown further posts: "hooks", or None.
        """
        if self.key is not None:
            try:
                answer = bus.look(wake=wake, mail=True)
            except mcp_client.UnreachableError as error:
                # A bus of an earlier version knows no sessions.
                if error.status != mcp_client.NOT_FOUND:
                    raise
            else:
                posts, count = answer.get("posts"), answer.get("unshown")
                if not isinstance(posts, list) or not isinstance(count, int):
                    raise mcp_client.UnreachableError("the response has no posts")
                return posts, count
        posts = bus.call("read_posts", to_me=True, unacked_only=True, limit=50)["posts"]
        if not isinstance(posts, list):
            raise mcp_client.UnreachableError("the response has no posts")
        unannounced = self._take_unannounced(posts)
        return unannounced, len(unannounced)

    def _take_unannounced(self, posts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the posts that this session was not notified of, and mark them as announced.

        Each post is marked by creating a file, so of two concurrent hooks one announces it. If no file can be created,
        no post is announced: silence is better than a loop.
        """
        unannounced = []
        try:
            folder = activity_log.ensure_state_folder(self.repo)
            for post in posts:
                try:
                    (folder / f"told-{self.session_hash}-{int(post['post_id'])}").touch(exist_ok=False)
                except FileExistsError:
                    continue
                unannounced.append(post)
        except OSError:
            return []
        return unannounced


def on_session_start(client: str, hook_input: dict[str, Any]) -> str | None:
    """Build the context for a session that starts; None for none."""
    session = find_session(client, hook_input)
    if session is None:
        return None
    _record_start(session)
    if session.key is not None:
        session_file.write(session.repo, session.config, client, session.session_id, session.key, 0.0)
    calls = [
        lambda bus: bus.call("whoami"),
        lambda bus: bus.call("whats_new", advance_cursor=False, limit=50),
        lambda bus: session.look(bus, "hooks"),
    ]
    budget = precommit.remaining_budget()
    answers = session.call(calls, budget)
    error = next((answer for answer in answers if isinstance(answer, Exception)), None)
    if error is not None:
        activity_log.record(session.repo, "proceeded", reason=f"no digest: {error}")
        return (
            f"LLM Bus is not available ({sanitize(error, 300)}). Continue without it, and tell the user to run: "
            f"{local_code.command(session.repo, 'doctor')}"
        )
    identity, digest, (posts, _) = answers
    minimum = precommit.find_minimum_version(session.repo, session.config, min(budget.remaining(), 0.4))
    try:
        text = session_texts.format_greeting(identity, digest, posts)
    except (KeyError, TypeError, ValueError):
        return None
    if minimum is not None and precommit.is_older(VERSION, minimum):
        text += (
            f"\nThe kit of this repository is {VERSION}, but the bus requires {sanitize(minimum, 20)} or newer: "
            "tell the user to update it."
        )
    return text + _describe_lost_check(session.repo)


def on_session_stop(client: str, hook_input: dict[str, Any]) -> str | None:
    """Build the reminder for an agent that is about to stop with posts that it was not shown; None for none."""
    # Set when a hook already keeps the session running: a second reminder would be a loop.
    if hook_input.get("stop_hook_active") or int(hook_input.get("loop_count") or 0) > 0:
        return None
    session = find_session(client, hook_input)
    if session is None:
        return None
    # After its stop, the session is shown posts only by a wait, or with its next turn.
    (answer,) = session.call([lambda bus: session.look(bus, None)], precommit.remaining_budget())
    if isinstance(answer, Exception):
        activity_log.record(session.repo, "proceeded", reason=f"posts not checked: {answer}")
        return None
    posts, _ = answer
    return session_texts.format_reminder(posts) if posts else None


def on_session_end(client: str, hook_input: dict[str, Any]) -> None:
    """End the session of a client, or of a subagent, on the bus: its leases end with it."""
    session = find_session(client, hook_input)
    if session is None:
        return
    if not hook_input.get("agent_id"):
        session_file.remove(client, session.session_id)
        _wait_file(session).unlink(missing_ok=True)
    if session.key is None:
        return
    (answer,) = session.call([lambda bus: bus.end_session()], mcp_client.TimeBudget(_END_SECONDS))
    if isinstance(answer, Exception):
        activity_log.record(session.repo, "proceeded", reason=f"session not ended: {answer}")


def wait_for_posts(client: str, hook_input: dict[str, Any]) -> str | None:
    """Wait for a post that the session was not shown, at most 55 minutes. Returns the reminder; None if none came.

    The wait also ends when the client or the session ends, or when the same session starts a newer wait. A session
    without a person does not wait: it would only keep the client from its end.
    """
    if os.environ.get("CLAUDE_CODE_SESSION_ATTENDED") == "0":
        return None
    session = find_session(client, hook_input)
    if session is None:
        return None
    parent_pid = os.getppid()
    client_pid = os.environ.get("CLAUDE_PID", "")
    owner_file = _wait_file(session)
    try:
        activity_log.ensure_state_folder(session.repo)
        wait_id = secrets.token_hex(8)
        owner_file.write_text(wait_id, "ascii")
    except OSError:
        return None
    deadline = time.monotonic() + _MAX_WAIT_SECONDS

    def should_continue() -> bool:
        try:
            is_newest = owner_file.read_text("ascii") == wait_id
        except OSError:
            return False
        is_client_there = os.getppid() == parent_pid and (not client_pid.isdigit() or _is_running(int(client_pid)))
        return is_newest and time.monotonic() < deadline and is_client_there

    results: list[list[dict[str, Any]] | None] = []
    waiting = threading.Thread(target=lambda: results.append(_wait_in_turns(session, should_continue)), daemon=True)
    waiting.start()
    # The process ends with its client, also in the middle of a call: the bus then offers posts to other sessions.
    while waiting.is_alive() and should_continue():
        waiting.join(0.5)
    posts = results[0] if results else None
    return session_texts.format_reminder(posts) if posts else None


def _wait_in_turns(session: Session, should_continue: Callable[[], bool]) -> list[dict[str, Any]] | None:
    """Call wait_for until there are posts to show; None if the wait is over."""
    if session.key is None:
        # If the stop hook runs at the same time, it announces the posts.
        _sleep_while(_STOP_HOOK_HEAD_START_SECONDS, should_continue)
    pause = _POLL_PAUSE_SECONDS if session.key is None else _KEYED_PAUSE_SECONDS
    while should_continue():
        started_at = time.monotonic()
        budget = mcp_client.TimeBudget(_LONG_POLL_SECONDS + 10)
        bus = mcp_client.BusClient(session.config.endpoint, session.config.token, budget, session.key)
        posts: list[dict[str, Any]] = []
        try:
            answer = bus.call("wait_for", kind="inbox", timeout_seconds=_LONG_POLL_SECONDS)
            if session.key is not None:
                # Those that the session was not shown, and for which the bus woke it alone.
                posts = list(answer.get("posts") or [])
            elif should_continue():
                posts, _ = session.look(bus, None)
        except mcp_client.UnreachableError as error:
            if error.status == 401:
                return None
            _sleep_while(_POLL_PAUSE_SECONDS, should_continue)
        except mcp_client.RefusedError:
            _sleep_while(_POLL_PAUSE_SECONDS, should_continue)
        if posts:
            return posts
        if time.monotonic() - started_at < pause:
            _sleep_while(pause, should_continue)
    return None


def format_output(client: str, event: str, message: str) -> str:
    """Format a message as the output that a client expects.

    Args:
        client: one of CLIENTS.
        event: start or stop.
        message: the text for the model.
    """
    if client == "cursor":
        output: dict[str, Any] = {"additional_context" if event == "start" else "followup_message": message}
    elif client == "opencode":
        output = {"context": message}
    elif event == "start" or client == "claude":
        # At the stop of Claude Code, a context keeps the session running, and the model is not shown the command.
        name = "SessionStart" if event == "start" else "Stop"
        output = {"hookSpecificOutput": {"hookEventName": name, "additionalContext": message}}
    else:
        output = {"decision": "deny" if client == "gemini" else "block", "reason": message}
    return json.dumps(output)


def find_session(client: str, hook_input: dict[str, Any]) -> Session | None:
    """Find the session of a hook; None if the repository is not connected, which is not an error."""
    session_id = str(hook_input.get("session_id") or hook_input.get("conversation_id") or "one")
    folder = os.environ.get("CLAUDE_PROJECT_DIR") or hook_input.get("cwd") or os.getcwd()
    try:
        work_tree = repo.get_repo(Path(str(folder)))
        config = load_config(work_tree)
    except (NoRepositoryError, ConfigError, OSError):
        return None
    if config.token is None:
        return None
    session_hash = hashlib.sha256(f"{client} {session_id}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
    key = session_key.find_key(client, hook_input)
    return Session(work_tree, config, client, session_id, session_hash, key)


def _describe_lost_check(work_tree: Repo) -> str:
    """Say that the commit check no longer runs, as after a hook manager wrote its own hook; empty if it runs."""
    try:
        detail = githooks.describe_loss(work_tree)
    except (NoRepositoryError, OSError):
        return ""
    return (
        f"\nCommits are no longer checked ({sanitize(detail, 200)}): tell the user to run {_INSTALL_COMMAND}."
        if detail
        else ""
    )


def _sleep_while(seconds: float, should_continue: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and should_continue():
        time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))


def _is_running(pid: int) -> bool:
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True


def _wait_file(session: Session) -> Path:
    return session.repo.git_dir / "llm-bus" / "state" / f"wait-{session.session_hash}"


def _record_start(session: Session) -> None:
    """Record for the doctor that a client has started with the kit, and delete the state of old sessions."""
    try:
        folder = activity_log.ensure_state_folder(session.repo)
        (folder / f"started-{session.client}").write_text(str(time.time()), "ascii")
        for path in [path for pattern in _STATE_FILES for path in folder.glob(pattern)]:
            if time.time() - path.stat().st_mtime > _STATE_MAX_AGE_SECONDS:
                path.unlink()
    except OSError:
        pass
