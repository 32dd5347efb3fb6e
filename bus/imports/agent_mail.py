"""Import of a project's archive of mcp_agent_mail: agents become participants, messages posts, reservations leases."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from psycopg.types.json import Jsonb

from bus import limits
from bus.coordination import leases
from bus.ctx import Ctx
from bus.db import Connection
from bus.errors import BusError, InvalidArgument
from bus.imports.findings import Finding, Findings
from bus.imports.former_ids import list_numbers, record_ids
from bus.imports.original_values import clean_label, clean_text, clip
from bus.imports.transactions import Transactions
from bus.tenancy import participation_queries, participations
from bus.tenancy.participation_queries import Participation
from bus.tenancy.participations import IssuedParticipation

_HEADER_START, _HEADER_END = "---json\n", "\n---\n"
_THREAD_PREFIX = "thread "
# A batch takes well below a second.
_BATCH_SIZE = 200
_LEASE_FOLDERS = ("file_reservations", "claims")


@dataclass(frozen=True, slots=True)
class Message:
    """A message of the archive."""

    id: str
    sender: str
    recipients: tuple[str, ...]
    subject: str
    body: str
    created: datetime
    thread_id: str | None


@dataclass(frozen=True, slots=True)
class AgentMailReport:
    """The result of an import.

    Attributes:
        agents: new participants with their tokens, which are shown only once.
    """

    agents: list[IssuedParticipation]
    messages: int
    unchanged: int
    leases: int
    findings: list[Finding]


def import_archive(transactions: Transactions, project_id: int, folder: Path, *, actor: str) -> AgentMailReport:
    """Import the archive of one project; what was imported before is left as it is.

    The ledger's order is that of commits, so the events of messages have the time of the import; posts keep the time of
    the message. The archive does not have read marks, so all messages count as acknowledged.

    Args:
        transactions: opens a transaction; each has a batch of messages.
    Raises:
        InvalidArgument: the folder is not the archive of a project.
    Locks: the project clock, then the owner.
    """
    if not (folder / "agents").is_dir():
        raise InvalidArgument(
            f"{folder} is not the archive of a project of mcp_agent_mail: it has no folder agents. Give the folder of"
            " one project, which has the folders agents and messages."
        )
    findings = Findings()
    messages = sorted(_read_messages(folder, findings), key=lambda message: (message.created, message.id))
    names = dict.fromkeys(path.name for path in sorted((folder / "agents").iterdir()) if path.is_dir())
    for message in messages:
        names |= dict.fromkeys((message.sender, *message.recipients))
    with transactions() as conn:
        issued = [new for name in names if (new := _join(conn, project_id, name, actor, findings)) is not None]
        by_name = {
            name: participation
            for name in names
            if (participation := participation_queries.find(conn, project_id, clean_label(name))) is not None
        }
    imported = 0
    for start in range(0, len(messages), _BATCH_SIZE):
        with transactions() as conn:
            batch = messages[start : start + _BATCH_SIZE]
            imported += _import_messages(conn, project_id, batch, by_name, findings)
    with transactions() as conn:
        lease_count = sum(_acquire_leases(conn, project_id, folder, by_name, findings))
    return AgentMailReport(issued, imported, len(messages) - imported, lease_count, findings.list_all())


def _join(conn: Connection, project_id: int, name: str, actor: str, findings: Findings) -> IssuedParticipation | None:
    label = clean_label(name)
    if participation_queries.find(conn, project_id, label) is not None:
        return None
    try:
        return participations.join(conn, project_id, label, actor=actor)
    except BusError as error:
        findings.add(f"an agent is left out: {error.message}", name)
        return None


def _read_messages(folder: Path, findings: Findings) -> Iterator[Message]:
    for path in sorted((folder / "messages").glob("[0-9]*/[0-9]*/*.md")):
        message = _parse_message(path.read_text(encoding="utf-8", errors="replace"))
        if message is None:
            findings.add("files that are not messages are left out", path.relative_to(folder))
        else:
            yield message


def _parse_message(text: str) -> Message | None:
    """Return the message of a file: a header in JSON between two marks, then the body."""
    text = clean_text(text.replace("\r\n", "\n"))
    header, end, body = text.removeprefix(_HEADER_START).partition(_HEADER_END)
    if not text.startswith(_HEADER_START) or not end:
        return None
    try:
        fields = json.loads(header)
        created = datetime.fromisoformat(str(fields.get("created") or fields.get("created_ts")))
        # One near the end of time has none in UTC.
        created = (created if created.tzinfo else created.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, AttributeError, RecursionError, OverflowError):
        return None
    sender, message_id = fields.get("from"), str(fields.get("id") or "")
    if not isinstance(sender, str) or not sender:
        return None
    if not 1 <= len(message_id) <= 200 or clean_text(message_id) != message_id:
        return None
    recipients = [name for kind in ("to", "cc", "bcc") for name in _names(fields.get(kind))]
    return Message(
        id=message_id,
        sender=sender,
        recipients=tuple(dict.fromkeys(recipients)),
        subject=clean_text(str(fields.get("subject") or "")),
        body=body.strip(),
        created=created,
        thread_id=clean_text(str(fields["thread_id"])) if fields.get("thread_id") else None,
    )


def _names(value: Any) -> list[str]:
    return [name for name in (value if isinstance(value, list) else [value]) if isinstance(name, str) and name]


def _import_messages(
    conn: Connection, project_id: int, messages: list[Message], by_name: dict[str, Participation], findings: Findings
) -> int:
    conn.execute("SELECT bus_lock_clock(%s)", (project_id,))
    numbers = list_numbers(conn, project_id, "agent_mail")
    imported: dict[str, int] = {}
    for message in messages:
        if message.id in numbers:
            continue
        sender = by_name.get(message.sender)
        recipients = [by_name[name] for name in message.recipients if name in by_name]
        if sender is None or not recipients:
            findings.add("messages without a sender or a recipient in the project are left out", message.id)
            continue
        body = clip(message.body, limits.MAX_BODY_LENGTH, findings, "the text of a message") or "(empty)"
        subject = clip(message.subject, limits.MAX_SUBJECT_LENGTH, findings, "a subject")
        # The id of a thread is that of its first message, or a name that its first message brings.
        reply_to = numbers.get(message.thread_id or "") or numbers.get(_thread_key(message))
        # A post has one addressee or a lane, so each further recipient gets a post of its own.
        posts = [
            _insert_post(conn, project_id, message, sender, recipient, subject, body, reply_to)
            for recipient in recipients
        ]
        for key in (message.id, _thread_key(message)):
            if key not in numbers:
                numbers[key] = imported[key] = posts[0]
    record_ids(conn, project_id, "agent_mail", imported.items())
    return sum(not key.startswith(_THREAD_PREFIX) for key in imported)


def _thread_key(message: Message) -> str:
    return f"{_THREAD_PREFIX}{message.thread_id or message.id}"[:200]


def _insert_post(
    conn: Connection,
    project_id: int,
    message: Message,
    sender: Participation,
    recipient: Participation,
    subject: str | None,
    body: str,
    reply_to: int | None,
) -> int:
    payload = {
        "to_lane": None, "to_actor": recipient.actor, "subject": subject, "ref": None, "tag": "agent-mail",
        "reply_to": reply_to, "recipients": 1, "original_id": message.id,
    }  # fmt: skip
    (number,) = conn.fetch_one(
        "SELECT seq FROM bus_append(%s, %s, %s, 'post', %s)", (project_id, sender.id, sender.actor, Jsonb(payload))
    )
    conn.execute(
        "INSERT INTO post (project_id, id, participation_id, actor, to_participation_id, to_actor, subject, body, tag,"
        " reply_to, recipients, created_at, acked_at)"
        " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, 'agent-mail', %s, 1, %s, clock_timestamp())",
        (
            project_id,
            number,
            sender.id,
            sender.actor,
            recipient.id,
            recipient.actor,
            subject,
            body,
            reply_to,
            message.created,
        ),
    )
    conn.execute(
        "INSERT INTO delivery (project_id, participation_id, post_id, surfaced_at, acked_at)"
        " VALUES (%s, %s, %s, clock_timestamp(), clock_timestamp())",
        (project_id, recipient.id, number),
    )
    return int(number)


def _acquire_leases(
    conn: Connection, project_id: int, folder: Path, by_name: dict[str, Participation], findings: Findings
) -> Iterator[int]:
    (now,) = conn.fetch_one("SELECT clock_timestamp()")
    for path in sorted(path for name in _LEASE_FOLDERS for path in (folder / name).glob("*.json")):
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
            expires_at = datetime.fromisoformat(str(fields["expires_ts"]))
            surface, holder = str(fields["path_pattern"]), by_name.get(str(fields["agent"]))
            left = (expires_at if expires_at.tzinfo else expires_at.replace(tzinfo=UTC)) - now
        except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
            findings.add("files that are not reservations are left out", path.relative_to(folder))
            continue
        if fields.get("released_ts") or left < timedelta(seconds=1) or holder is None:
            continue
        ctx = Ctx(project_id, holder.id, holder.participant_id, 0, None)
        reason = clean_text(str(fields.get("reason") or ""))
        try:
            leases.acquire(
                conn,
                ctx,
                surface,
                ttl=min(left, timedelta(seconds=limits.MAX_DURATION_SECONDS)),
                note=clip(reason, limits.MAX_NOTE_LENGTH, findings, "the note of a lease"),
                mode="exclusive" if fields.get("exclusive", True) else "shared",
            )
        except BusError as error:
            findings.add(f"a reservation is left out: {error.message}", clean_text(surface))
            continue
        yield 1
