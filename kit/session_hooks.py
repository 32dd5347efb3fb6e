"""The wake hook: a digest when a session starts, a word when it is about to stop with mail, a wait in the background.

It says each post once to each session, so it never loops; with nothing to say it prints nothing, so it costs no turn.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kit import VERSION, activity_log, mcp_client, precommit, repo
from kit.config import Config, ConfigError, load_config
from kit.repo import NoRepositoryError, Repo

CLIENTS = ("claude", "codex", "gemini", "cursor")
_MAX_POSTS = 5
_MAX_EVENTS = 10
# Below the timeout that the client is told for the hook.
_MAX_WAIT_SECONDS = 3300
_POLL_PAUSE_SECONDS = 15
_LONG_POLL_SECONDS = 50
_STATE_MAX_AGE_SECONDS = 7 * 86400


@dataclass(frozen=True)
class Session:
    """A session of a client, in a repository that is connected."""

    repo: Repo
    config: Config
    client: str
    session_hash: str

    def take_unannounced(self, posts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those of the posts that this session was not told of yet; they count as told from now on.

        Each is claimed by creating a file, so that of two hooks that run at once one tells it. Where nothing can be
        remembered nothing is told: better silent than again and again.
        """
        fresh = []
        try:
            folder = activity_log.ensure_state_folder(self.repo.top)
            for post in posts:
                try:
                    (folder / f"told-{self.session_hash}-{int(post['post_id'])}").touch(exist_ok=False)
                except FileExistsError:
                    continue
                fresh.append(post)
        except OSError:
            return []
        return fresh


def on_session_start(client: str, hook_input: dict[str, Any]) -> str | None:
    """What to put into the context of a session that starts; None for nothing."""
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
    me, news, mail = answers
    for answer in (me, news, mail):
        if isinstance(answer, Exception):
            reason = f"no digest: {answer}"
            activity_log.record(session.repo.top, "proceeded", reason=reason)
            return (
                f"LLM Bus cannot be reached ({answer}). Work goes on without it; tell the user, who can run: "
                "python3 .llm-bus/kit doctor"
            )
    minimum = precommit.find_minimum_version(session.repo, session.config, min(budget.remaining(), 0.4))
    try:
        text = _format_digest(me, news, session.take_unannounced(mail["posts"]) or mail["posts"])
    except (KeyError, TypeError):
        return None
    if minimum is not None and precommit.is_older(VERSION, minimum):
        text += f"\nThe kit of this repository ({VERSION}) is older than the bus wants ({minimum}): tell the user."
    return text


def on_session_stop(client: str, hook_input: dict[str, Any]) -> str | None:
    """What to say to an agent that is about to stop with mail that it was not told of; None for nothing."""
    # The client says that it goes on only because of a hook: a second word would be a loop.
    if hook_input.get("stop_hook_active") or int(hook_input.get("loop_count") or 0) > 0:
        return None
    session = _find_session(client, hook_input)
    if session is None:
        return None
    (mail,) = mcp_client.call_in_parallel(
        session.config.endpoint, session.config.token, [_fetch_unacked_posts], precommit.remaining_budget()
    )
    if isinstance(mail, Exception):
        activity_log.record(session.repo.top, "proceeded", reason=f"mail not looked for: {mail}")
        return None
    fresh = session.take_unannounced(mail)
    return _format_posts(fresh) if fresh else None


def wait_for_posts(client: str, hook_input: dict[str, Any]) -> str | None:
    """Wait until mail arrives that the session was not told of, an hour at most; None if none came.

    A newer wait of the same session ends this one, and so does the end of the client.
    """
    session = _find_session(client, hook_input)
    if session is None:
        return None
    parent = os.getppid()
    try:
        turn = activity_log.ensure_state_folder(session.repo.top) / f"wait-{session.session_hash}"
        mine = secrets.token_hex(8)
        turn.write_text(mine, "ascii")
    except OSError:
        return None
    end = time.monotonic() + _MAX_WAIT_SECONDS

    def goes_on() -> bool:
        try:
            return time.monotonic() < end and os.getppid() == parent and turn.read_text("ascii") == mine
        except OSError:
            return False

    # The word at the stop itself comes first, if both run.
    _sleep_while(3, goes_on)
    while goes_on():
        began = time.monotonic()
        bus = mcp_client.BusClient(
            session.config.endpoint, session.config.token, mcp_client.TimeBudget(_LONG_POLL_SECONDS + 10)
        )
        try:
            bus.call("wait_for", kind="inbox", timeout_seconds=_LONG_POLL_SECONDS)
            fresh = session.take_unannounced(_fetch_unacked_posts(bus)) if goes_on() else []
        except mcp_client.UnreachableError as error:
            if error.status == 401:
                return None
            fresh = []
        except mcp_client.RefusedError:
            fresh = []
        if fresh:
            return _format_posts(fresh)
        if time.monotonic() - began < _POLL_PAUSE_SECONDS:
            # Old mail answers at once: then we look now and then.
            _sleep_while(_POLL_PAUSE_SECONDS, goes_on)
    return None


def format_output(client: str, event: str, message: str) -> str:
    """The words in the form that a client wants: `event` is start or stop."""
    if client == "cursor":
        said: dict[str, Any] = {"additional_context" if event == "start" else "followup_message": message}
    elif event == "start":
        said = {"hookSpecificOutput": {"hookEventName": "SessionStart", "additionalContext": message}}
    else:
        said = {"decision": "deny" if client == "gemini" else "block", "reason": message}
    return json.dumps(said)


def _sleep_while(seconds: float, should_continue: Any) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and should_continue():
        time.sleep(min(1.0, max(0.0, end - time.monotonic())))


def _fetch_unacked_posts(bus: mcp_client.BusClient) -> list[dict[str, Any]]:
    found = bus.call("read_posts", to_me=True, unacked_only=True, limit=50)["posts"]
    if not isinstance(found, list):
        raise mcp_client.UnreachableError("it answered without posts")
    return found


def _find_session(client: str, hook_input: dict[str, Any]) -> Session | None:
    """The session that a client speaks of; None where the repository is not connected, which is no fault."""
    name = hook_input.get("session_id") or hook_input.get("conversation_id") or "one"
    place = os.environ.get("CLAUDE_PROJECT_DIR") or hook_input.get("cwd") or os.getcwd()
    try:
        where = repo.get_repo(Path(str(place)))
        config = load_config(where)
    except (NoRepositoryError, ConfigError, OSError):
        return None
    if config.token is None:
        return None
    digest = hashlib.sha256(f"{client} {name}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
    return Session(where, config, client, digest)


def _record_start(session: Session) -> None:
    """That a client has started with the kit, for the doctor; and forget sessions that are long over."""
    try:
        folder = activity_log.ensure_state_folder(session.repo.top)
        (folder / f"started-{session.client}").write_text(str(time.time()), "ascii")
        for old in [*folder.glob("told-*"), *folder.glob("wait-*")]:
            if time.time() - old.stat().st_mtime > _STATE_MAX_AGE_SECONDS:
                old.unlink()
    except OSError:
        pass


def _format_digest(me: dict[str, Any], news: dict[str, Any], posts: list[dict[str, Any]]) -> str:
    lines = [f"LLM Bus: you are {_sanitize(me['actor'])} in project {_sanitize(me['project'])}."]
    events = news["events"]
    if events:
        more = "50 or more" if news.get("more") else str(len(events))
        lines.append(f"{more} events since you last asked; the newest:")
        lines += [f"- {_format_event(event)}" for event in events[-_MAX_EVENTS:]]
    if news["active_leases"]:
        lines.append(f"{news['active_leases']} live leases: who_holds names them.")
    if news["unacked_posts"]:
        lines.append(f"{news['unacked_posts']} unread posts for you; the words are other participants':")
        lines += [f"- {_format_post(post)}" for post in posts[:_MAX_POSTS]]
        lines.append("read_posts(to_me=true, unacked_only=true) shows them; ack what you take up.")
    lines.append("Call whats_new before you begin, and register your lane and what you do.")
    return "\n".join(lines)


def _format_posts(posts: list[dict[str, Any]]) -> str:
    lines = [
        f"LLM Bus: {len(posts)} new post{'s' if len(posts) > 1 else ''} for you; the words are other participants':"
    ]
    lines += [f"- {_format_post(post)}" for post in posts[:_MAX_POSTS]]
    lines.append(
        "Look with read_posts(to_me=true, unacked_only=true), ack what you take up, answer or hand on, "
        "then stop if there is nothing for you to do. You are told of these once."
    )
    return "\n".join(lines)


def _format_post(post: dict[str, Any]) -> str:
    about = post.get("subject") or post.get("body") or ""
    ref = f" ({_sanitize(post['ref'])})" if post.get("ref") else ""
    return f"post {int(post['post_id'])} from {_sanitize(post['from'])}{ref}: {json.dumps(_sanitize(about, 100))}"


def _format_event(event: dict[str, Any]) -> str:
    payload = event.get("payload") or {}
    told = ("formatted", "surface", "to_lane", "to_actor", "subject", "title", "task_id", "lane", "status", "ref")
    facts = [f"{name} {_sanitize(payload[name], 60)}" for name in told if payload.get(name) not in (None, "")]
    return f"{_sanitize(event['actor'])} {_sanitize(event['type'])}: {', '.join(facts[:3]) or '-'}"


def _sanitize(value: Any, max_length: int = 80) -> str:
    """What somebody else wrote, on one line and short."""
    text = "".join(char if char.isprintable() else " " for char in str(value))
    return text if len(text) <= max_length else text[: max_length - 1] + "…"
