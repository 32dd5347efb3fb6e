"""What the session hooks say to the model: the greeting, the reminder of posts, and the line about mail."""

from __future__ import annotations

import json
from typing import Any

MAX_POSTS = 5
_MAX_EVENTS = 10
_MAX_LISTED_IN_A_LINE = 3
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


def format_greeting(identity: dict[str, Any], digest: dict[str, Any], posts: list[dict[str, Any]]) -> str:
    """Format who the agent is, and what happened: the events of others, leases and posts.

    Raises:
        KeyError, TypeError, ValueError: an answer is not of the bus.
    """
    lines = [f"LLM Bus: you are {sanitize(identity['actor'])} in project {sanitize(identity['project'])}."]
    events = [event for event in digest["events"] if not event.get("mine")]
    if events:
        count = "50 or more" if digest.get("more") else str(len(events))
        lines.append(f"Events of others since your last whats_new: {count}. The newest:")
        lines += [f"- {_format_event(event)}" for event in events[-_MAX_EVENTS:]]
    if digest["active_leases"]:
        lines.append(f"Active leases: {int(digest['active_leases'])}; who_holds lists them.")
    if digest["unacked_posts"]:
        lines.append(
            f"Unacknowledged posts for you: {int(digest['unacked_posts'])}; other participants wrote their text:"
        )
        lines += [f"- {_format_post(post)}" for post in posts[:MAX_POSTS]]
        lines.append("Read them with read_posts(to_me=true, unacked_only=true); ack each that you take up.")
    lines.append("Call whats_new before you start.")
    return "\n".join(lines)


def format_reminder(posts: list[dict[str, Any]]) -> str:
    """Format the posts that keep an agent from its stop, or wake it."""
    plural = "s" if len(posts) > 1 else ""
    lines = [f"LLM Bus: {len(posts)} new post{plural} for you; other participants wrote the text:"]
    lines += [f"- {_format_post(post)}" for post in posts[:MAX_POSTS]]
    lines.append(
        "Read them with read_posts(to_me=true, unacked_only=true), ack each that you take up, and answer it or hand it "
        "on. If there is nothing for you to do, stop. This reminder appears once."
    )
    return "\n".join(lines)


def format_mail(posts: list[dict[str, Any]], count: int) -> str:
    """Format one line about posts that arrived while the agent works; others wrote the quoted words."""
    shown = "; ".join(_format_post(post, 80) for post in posts[:_MAX_LISTED_IN_A_LINE])
    plural = "s" if count > 1 else ""
    more = f" and {count - _MAX_LISTED_IN_A_LINE} more" if count > _MAX_LISTED_IN_A_LINE else ""
    return (
        f"LLM Bus: {count} new post{plural} for you, in other participants' words: {shown}{more}. When it fits your "
        "work: read_posts(to_me=true, unacked_only=true), and ack what you take up."
    )


def _format_post(post: dict[str, Any], max_length: int = 100) -> str:
    summary = post.get("subject") or post.get("body") or ""
    ref = f" ({sanitize(post['ref'])})" if post.get("ref") else ""
    text = json.dumps(sanitize(summary, max_length), ensure_ascii=False)
    return f"post {int(post['post_id'])} from {sanitize(post['from'])}{ref}: {text}"


def _format_event(event: dict[str, Any]) -> str:
    payload = event.get("payload") or {}
    details = [
        f"{name} {sanitize(payload[name], 60)}" for name in _EVENT_DETAILS if payload.get(name) not in (None, "")
    ]
    session = f" (another session of yours, {sanitize(event['session'])})" if event.get("session") else ""
    return f"{sanitize(event['actor'])}{session} {sanitize(event['type'])}: {', '.join(details[:3]) or '-'}"


def sanitize(value: Any, max_length: int = 80) -> str:
    """Shorten text of other participants and put it on one line."""
    text = "".join(char if char.isprintable() else " " for char in str(value))
    return text if len(text) <= max_length else text[: max_length - 1] + "…"
