"""Subjects and texts of e-mails.

A subject contains nothing that a participant or owner wrote. In a text, what they wrote is one line in quotation marks
behind a label, without line breaks and invisible characters, so that it cannot look like a line of this service.
"""

import re
import unicodedata
from collections.abc import Callable
from datetime import UTC, datetime, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from bus.notifications.outbox import OutboxMessage
from workers.settings import WorkerSettings

_MAX_QUOTE_LENGTH = 200
# Control and format characters, line and paragraph separators, surrogates, private use.
_INVISIBLE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})

# What mail programs turn into a link: an address, or a word with a dot and letters.
_LINK_LIKE_PATTERN = re.compile(r"[@:]|\w[.。]\w*[^\W\d_]{2}")
_ROLES = {
    "viewer": "viewer (sees everything)",
    "member": "member (posts, tasks and own agents)",
    "lead": "lead (as member, and manages people)",
}


def compose(notice: OutboxMessage, settings: WorkerSettings) -> tuple[str, str]:
    """Return the subject and the text of a notice."""
    subject, text = _TEXT_BY_KIND[notice.kind](notice.content, settings)
    url = unsubscribe_url(notice, settings)
    footer = f"To receive no more of these e-mails: {url}" if url else f"{settings.bus.public_url}/admin"
    return f"LLM Bus: {subject}", f"{text}\n\n{footer}"


def unsubscribe_url(notice: OutboxMessage, settings: WorkerSettings) -> str | None:
    """Return the link that ends the e-mails to an address; None for those about the owner's own account."""
    token = notice.content.get("unsubscribe_token")
    return f"{settings.bus.public_url}/email/unsubscribe/{token}" if token else None


def _escalation_text(content: dict[str, Any], settings: WorkerSettings) -> tuple[str, str]:
    # Messages that the previous version queued have one post and no list.
    posts, more = content.get("posts", [content]), content.get("more", 0)
    count = len(posts) + more
    noun = "handoff has" if count == 1 else "handoffs have"
    parts = [f"{count} {noun} not been acknowledged in time. Texts in quotation marks were written by participants."]
    parts += [_describe_post(post, settings) for post in posts]
    if more:
        parts.append(f"{more} more: {settings.bus.public_url}/admin")
    return f"{count} overdue handoff{'' if count == 1 else 's'}", "\n\n".join(parts)


def _describe_post(post: dict[str, Any], settings: WorkerSettings) -> str:
    addressees = [
        *([f"lane {quote(post['to_lane'])}"] if post.get("to_lane") else []),
        *([quote(post["to_actor"])] if post.get("to_actor") else []),
    ]
    lines = [
        f"Handoff {int(post['post_id'])} in project {quote(post['project'])}",
        f"  From: {quote(post['sender'])}",
        f"  To: {' and '.join(addressees)}",
        *([f"  Subject: {quote(post['subject'])}"] if post.get("subject") else []),
        *([f"  About: {quote(post['ref'])}"] if post.get("ref") else []),
        f"  Due: {format_time(datetime.fromisoformat(post['ack_due_at']), settings.mail_time_zone)}",
    ]
    if "project_id" in post:
        url = f"{settings.bus.public_url}/admin/projects/{int(post['project_id'])}/handoffs/{int(post['post_id'])}"
        lines.append(f"  Open: {url}")
    return "\n".join(lines)


def _confirm_address_text(content: dict[str, Any], settings: WorkerSettings) -> tuple[str, str]:
    public_url = settings.bus.public_url
    return (
        "confirm this address",
        f"{content['owner']}, a user of {public_url}, wants to send notifications about overdue handoffs to this"
        f" address.\n\nTo receive them, open this link within seven days:\n{public_url}/email/confirm/"
        f"{content['confirm_token']}\n\nIf you do not expect this, do nothing: no notification is sent to an address"
        " that was not confirmed.",
    )


def _invite_text(content: dict[str, Any], settings: WorkerSettings) -> tuple[str, str]:
    public_url, owner = settings.bus.public_url, content["project_owner"]
    # A name that looks like a link would be one, to a place of the giver's choice.
    is_link_like = _LINK_LIKE_PATTERN.search(unicodedata.normalize("NFKC", content["project"]))
    project = "see the page of the invite for its name" if is_link_like else quote(content["project"])
    until = format_time(datetime.fromisoformat(content["expires_at"]), settings.mail_time_zone)
    return (
        "an invite to a project",
        f"{content['giver']}, a user of {public_url}, invites you to a project.\n\n"
        f"  Project: {project}\n  Owner: {owner}\n  Role: {_ROLES[content['role']]}\n  Until: {until}\n\n"
        f"To see and accept the invite, open this link:\n{public_url}/join/{content['code']}\n\n"
        "Sign in with this e-mail address, or create an account with it; the invite works for no other. If you got"
        " several e-mails about this invite, use the newest.\n\n"
        "If you do not expect this, ignore it: unless you accept, nothing happens, and the invite ends by itself.",
    )


def _low_balance_text(content: dict[str, Any], _settings: WorkerSettings) -> tuple[str, str]:
    return (
        f"{content['balance']} credits left",
        f"Your LLM Bus balance has fallen to {content['balance']} credits. Top it up so that your agents can "
        "continue to work.",
    )


def _delinquent_text(content: dict[str, Any], _settings: WorkerSettings) -> tuple[str, str]:
    return (
        "your credits are used up",
        f"Your LLM Bus balance is {content['balance']} credits. Your agents continue to work for now; "
        "unless you top up, their calls are refused when the grace period ends.",
    )


def _suspended_text(content: dict[str, Any], _settings: WorkerSettings) -> tuple[str, str]:
    return (
        "your agents are refused until you top up",
        f"Your LLM Bus balance is {content['balance']} credits and the grace period is over. Nothing is lost: "
        "as soon as your balance is above zero, everything works again.",
    )


def _test_text(_content: dict[str, Any], _settings: WorkerSettings) -> tuple[str, str]:
    return "a test", "If you can read this, notices reach you."


_TEXT_BY_KIND: dict[str, Callable[[dict[str, Any], WorkerSettings], tuple[str, str]]] = {
    "escalation": _escalation_text,
    "confirm_address": _confirm_address_text,
    "invite": _invite_text,
    "low_balance": _low_balance_text,
    "delinquent": _delinquent_text,
    "suspended": _suspended_text,
    "test": _test_text,
}


def quote(text: str) -> str:
    """Return a text of a participant as one line in quotation marks."""
    visible = "".join(
        " " if char.isspace() or unicodedata.category(char) in ("Zl", "Zp") else char
        for char in text
        if char.isspace() or unicodedata.category(char) not in _INVISIBLE_CATEGORIES
    )
    line = " ".join(visible.split()).replace('"', "'")
    return f'"{line if len(line) <= _MAX_QUOTE_LENGTH else line[: _MAX_QUOTE_LENGTH - 1] + "…"}"'


def format_time(moment: datetime, time_zone: str) -> str:
    """Return a time in the given zone, with UTC beside it."""
    zone: tzinfo = UTC if time_zone == "UTC" else ZoneInfo(time_zone)
    local, universal = moment.astimezone(zone), moment.astimezone(UTC)
    # Not strftime for the names: they would follow the locale of the machine.
    day = f"{_DAYS[local.weekday()]}, {local.day} {_MONTHS[local.month - 1]} {local.year}"
    text = f"{day}, {local:%H:%M} {local.tzname()}"
    return text if zone is UTC else f"{text} ({universal:%H:%M} UTC)"


_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
