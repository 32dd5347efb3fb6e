"""The session hooks: a digest at the start, a reminder of new posts at the stop, and a wait in the background.

Each session is notified of each post once, so the stop hook never loops. Without new posts the hooks print nothing, so
they cost no turn.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit import VERSION, activity_log, local_code, mcp_client, precommit, repo
from kit.config import Config, ConfigError, load_config
from kit.repo import NoRepositoryError, Repo

CLIENTS = ("claude", "codex", "gemini", "cursor", "opencode")
_MAX_POSTS = 5
_MAX_EVENTS = 10
# Shorter than the timeout of the hook in the client's configuration.
_MAX_WAIT_SECONDS = 3300
_POLL_PAUSE_SECONDS = 15
_LONG_POLL_SECONDS = 50
_STOP_HOOK_HEAD_START_SECONDS = 3
_STATE_MAX_AGE_SECONDS = 7 * 86400
# Announced posts and leases, waits, and notes between two hooks.
_STATE_FILES = ("told-*", "leased-*", "wait-*", "note-*")
_EVENT_DETAILS = (
    "formatted",
    "surface",
    "to_lane",
    "to_actor",
    "subject",
    "title",
    "task_id",
    "lane",
    "status",
    "ref",
)


@dataclass(frozen=True)
class Session:
    """A session of a client in a connected repository."""

    repo: Repo
    config: Config
    client: str
    session_hash: str

    def take_unannounced(self, posts: list[dict[str, Any]]) -> list[dict[str, Any]]:
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
    session = _find_session(client, hook_input)
    if session is None:
        return None
    _record_start(session)
    calls = [
        lambda bus: bus.call("whoami"),
        lambda bus: bus.call("whats_new", advance_cursor=False, limit=50),
        lambda bus: bus.call("read_posts", to_me=True, unacked_only=True, limit=_MAX_POSTS),
    ]
    budget = precommit.remaining_budget()
    answers: list[Any] = mcp_client.call_in_parallel(session.config.endpoint, session.config.token, calls, budget)
    error = next((answer for answer in answers if isinstance(answer, Exception)), None)
    if error is not None:
        activity_log.record(session.repo, "proceeded", reason=f"no digest: {error}")
        return (
            f"LLM Bus is not available ({_sanitize(error, 300)}). Continue without it, and tell the user to run: "
            f"{local_code.command(session.repo, 'doctor')}"
        )
    identity, digest, inbox = answers
    minimum = precommit.find_minimum_version(session.repo, session.config, min(budget.remaining(), 0.4))
    try:
        text = _format_digest(identity, digest, session.take_unannounced(inbox["posts"]) or inbox["posts"])
    except (KeyError, TypeError, ValueError):
        return None
    if minimum is not None and precommit.is_older(VERSION, minimum):
        text += (
            f"\nThe kit of this repository is {VERSION}, but the bus requires {_sanitize(minimum, 20)} or newer: "
            "tell the user to update it."
        )
    return text


def on_session_stop(client: str, hook_input: dict[str, Any]) -> str | None:
    """Build the reminder for an agent that is about to stop with unannounced posts; None for none."""
    # Set when a hook already keeps the session running: a second reminder would be a loop.
    if hook_input.get("stop_hook_active") or int(hook_input.get("loop_count") or 0) > 0:
        return None
    session = _find_session(client, hook_input)
    if session is None:
        return None
    (posts,) = mcp_client.call_in_parallel(
        session.config.endpoint, session.config.token, [_fetch_unacked_posts], precommit.remaining_budget()
    )
    if isinstance(posts, Exception):
        activity_log.record(session.repo, "proceeded", reason=f"posts not checked: {posts}")
        return None
    unannounced = session.take_unannounced(posts)
    return _format_posts(unannounced) if unannounced else None


def wait_for_posts(client: str, hook_input: dict[str, Any]) -> str | None:
    """Wait for an unannounced post, at most 55 minutes. Returns the reminder; None if no post came.

    The wait also ends when the client ends or the same session starts a newer wait.
    """
    session = _find_session(client, hook_input)
    if session is None:
        return None
    parent_pid = os.getppid()
    try:
        owner_file = activity_log.ensure_state_folder(session.repo) / f"wait-{session.session_hash}"
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
        return is_newest and time.monotonic() < deadline and os.getppid() == parent_pid

    # If the stop hook runs at the same time, it announces the posts.
    _sleep_while(_STOP_HOOK_HEAD_START_SECONDS, should_continue)
    while should_continue():
        started_at = time.monotonic()
        bus = mcp_client.BusClient(
            session.config.endpoint, session.config.token, mcp_client.TimeBudget(_LONG_POLL_SECONDS + 10)
        )
        unannounced: list[dict[str, Any]] = []
        try:
            bus.call("wait_for", kind="inbox", timeout_seconds=_LONG_POLL_SECONDS)
            if should_continue():
                unannounced = session.take_unannounced(_fetch_unacked_posts(bus))
        except mcp_client.UnreachableError as error:
            if error.status == 401:
                return None
        except mcp_client.RefusedError:
            pass
        if unannounced:
            return _format_posts(unannounced)
        if time.monotonic() - started_at < _POLL_PAUSE_SECONDS:
            # wait_for returns at once while old posts are unacknowledged, so pause between the calls.
            _sleep_while(_POLL_PAUSE_SECONDS, should_continue)
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
    elif event == "start":
        output = {"hookSpecificOutput": {"hookEventName": "SessionStart", "additionalContext": message}}
    else:
        output = {"decision": "deny" if client == "gemini" else "block", "reason": message}
    return json.dumps(output)


def _sleep_while(seconds: float, should_continue: Callable[[], bool]) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and should_continue():
        time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))


def _fetch_unacked_posts(bus: mcp_client.BusClient) -> list[dict[str, Any]]:
    posts = bus.call("read_posts", to_me=True, unacked_only=True, limit=50)["posts"]
    if not isinstance(posts, list):
        raise mcp_client.UnreachableError("the response has no posts")
    return posts


def _find_session(client: str, hook_input: dict[str, Any]) -> Session | None:
    """Find the session of a hook; None if the repository is not connected, which is not an error."""
    session_id = hook_input.get("session_id") or hook_input.get("conversation_id") or "one"
    folder = os.environ.get("CLAUDE_PROJECT_DIR") or hook_input.get("cwd") or os.getcwd()
    try:
        work_tree = repo.get_repo(Path(str(folder)))
        config = load_config(work_tree)
    except (NoRepositoryError, ConfigError, OSError):
        return None
    if config.token is None:
        return None
    session_hash = hashlib.sha256(f"{client} {session_id}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return Session(work_tree, config, client, session_hash)


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


def _format_digest(identity: dict[str, Any], digest: dict[str, Any], posts: list[dict[str, Any]]) -> str:
    lines = [f"LLM Bus: you are {_sanitize(identity['actor'])} in project {_sanitize(identity['project'])}."]
    events = digest["events"]
    if events:
        count = "50 or more" if digest.get("more") else str(len(events))
        lines.append(f"Events since your last whats_new: {count}. The newest:")
        lines += [f"- {_format_event(event)}" for event in events[-_MAX_EVENTS:]]
    if digest["active_leases"]:
        lines.append(f"Active leases: {int(digest['active_leases'])}; who_holds lists them.")
    if digest["unacked_posts"]:
        lines.append(
            f"Unacknowledged posts for you: {int(digest['unacked_posts'])}; other participants wrote their text:"
        )
        lines += [f"- {_format_post(post)}" for post in posts[:_MAX_POSTS]]
        lines.append("Read them with read_posts(to_me=true, unacked_only=true); ack each that you take up.")
    lines.append("Call whats_new before you start, and register your lane and status.")
    return "\n".join(lines)


def _format_posts(posts: list[dict[str, Any]]) -> str:
    plural = "s" if len(posts) > 1 else ""
    lines = [f"LLM Bus: {len(posts)} new post{plural} for you; other participants wrote the text:"]
    lines += [f"- {_format_post(post)}" for post in posts[:_MAX_POSTS]]
    lines.append(
        "Read them with read_posts(to_me=true, unacked_only=true), ack each that you take up, and answer it or hand it "
        "on. If there is nothing for you to do, stop. This reminder appears once."
    )
    return "\n".join(lines)


def _format_post(post: dict[str, Any]) -> str:
    summary = post.get("subject") or post.get("body") or ""
    ref = f" ({_sanitize(post['ref'])})" if post.get("ref") else ""
    return f"post {int(post['post_id'])} from {_sanitize(post['from'])}{ref}: {json.dumps(_sanitize(summary, 100))}"


def _format_event(event: dict[str, Any]) -> str:
    payload = event.get("payload") or {}
    details = [
        f"{name} {_sanitize(payload[name], 60)}" for name in _EVENT_DETAILS if payload.get(name) not in (None, "")
    ]
    return f"{_sanitize(event['actor'])} {_sanitize(event['type'])}: {', '.join(details[:3]) or '-'}"


def _sanitize(value: Any, max_length: int = 80) -> str:
    """Shorten text of other participants and put it on one line."""
    text = "".join(char if char.isprintable() else " " for char in str(value))
    return text if len(text) <= max_length else text[: max_length - 1] + "…"
