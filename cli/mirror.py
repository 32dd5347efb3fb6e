"""A project's ledger and state as files that can be committed: read over MCP, compared, written only where different.

OUT/ledger.jsonl holds every event once, in order, one canonical line each; a run reads what it has and asks for the
rest. OUT/state.md is what is open now. Neither holds a time of the run or anything that passes by itself, so that
nothing changes while nothing happens.
"""

import itertools
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.client import Client
from cli.exit_codes import CliError, ExitCode

LEDGER_FILE = "ledger.jsonl"
STATE_FILE = "state.md"
_EVENT_FIELDS = ("id", "ts", "actor", "type", "payload")


@dataclass(frozen=True)
class ExportResult:
    """What a run did: `events` in all, `added` of them new, and whether the state differed."""

    project: str
    events: int
    added: int
    state_changed: bool


def export(bus: Client, project: str, out: Path) -> ExportResult:
    """Bring the files of a project up to date.

    Raises:
        CliError: the token is of another project; the files are no mirror, or one of another ledger.
    """
    project = _require_token_project(bus, project)
    out.mkdir(parents=True, exist_ok=True)
    path = out / LEDGER_FILE
    head, last = _read_last_event(path)
    if head:
        # One event is read again: if it differs this is not the ledger that the file came from.
        again = next(iter(bus.iter_events(head - 1)), None)
        if again is None or _encode_event(again) != last:
            raise CliError(f"{path} ends with an event that this project does not have; it mirrors something else.")
    added = _append_events(path, bus.iter_events(head), head)
    state = render_state(bus, project, head + added)
    changed = not (out / STATE_FILE).exists() or (out / STATE_FILE).read_bytes() != state
    if changed:
        _replace_file(out / STATE_FILE, state)
    return ExportResult(project, head + added, added, changed)


def verify(bus: Client, out: Path) -> list[str]:
    """What is wrong with a mirror, in sentences; empty if it is contiguous and says what the bus says.

    A mirror that ends before the ledger does is not wrong, only old.
    """
    path = out / LEDGER_FILE
    if not path.exists():
        raise CliError(f"{path} does not exist.", ExitCode.NOT_FOUND)
    wrong: list[str] = []
    server = bus.iter_events(0)
    count = 0
    with path.open("rb") as lines:
        for count, raw in enumerate(lines, 1):
            if not raw.endswith(b"\n"):
                wrong.append(f"line {count} is not whole")
                break
            found = _parse_object(raw)
            if found is None or found.get("id") != count:
                wrong.append(f"line {count} does not hold event {count}: the mirror is not contiguous")
                break
            event = next(server, None)
            if event is None:
                wrong.append(f"line {count} holds an event that the bus does not have")
                break
            if _encode_event(event) != raw:
                wrong.append(f"line {count} differs from what the bus says of event {count}")
                break
    if not wrong and next(server, None) is None:
        project = bus.call("whoami")["project"]
        state = out / STATE_FILE
        if not state.exists() or state.read_bytes() != render_state(bus, project, count):
            wrong.append(f"{state} is not what the bus says")
    return wrong


def render_state(bus: Client, project: str, event_count: int) -> bytes:
    """The state as Markdown: sequences, tasks, leases, participants' handoffs without an ack."""
    parts = [f"# {_escape_cell(project)}", "", f"The ledger has {event_count} events.", ""]
    sequences = bus.iter_rows("list_sequences", "sequences")
    counters = [(one["name"], one["last_used"], one["next_formatted"]) for one in sequences]
    parts += _render_section("Sequences", ("sequence", "last used", "next"), counters)
    tasks = sorted(bus.iter_rows("list_tasks", "tasks", limit=200), key=lambda one: one["task_id"])
    open_ = [one for one in tasks if one["status"] != "done"]
    parts += _render_section(
        "Open tasks",
        ("task", "status", "priority", "lane", "owner", "waits for", "title"),
        [
            (
                one["task_id"],
                one["status"],
                one["priority"],
                one["lane"],
                one["owner"],
                "; ".join(_format_blocker(each) for each in one["blockers"]),
                one["title"],
            )
            for one in open_
        ],
    )
    parts += [f"{len(tasks) - len(open_)} tasks are done.", ""]
    leases = sorted(bus.iter_rows("who_holds", "leases"), key=lambda one: one["fence"])
    held = [(one["surface"], one["actor"], one["mode"], one["expires_at"], one["note"]) for one in leases]
    parts += _render_section("Leases", ("surface", "held by", "mode", "until", "note"), held)
    posts = bus.call("read_posts", limit=200)["posts"]
    waiting = [one for one in reversed(posts) if not one["acked_by"]]
    parts += _render_section(
        "Handoffs without an ack (of the newest 200 posts)",
        ("post", "from", "to", "subject", "ref"),
        [
            (
                one["post_id"],
                one["from"],
                " ".join(name for name in (one["to_lane"], one["to_actor"]) if name),
                one["subject"],
                one["ref"],
            )
            for one in waiting
        ],
    )
    return "\n".join(parts).rstrip("\n").encode() + b"\n"


def _require_token_project(bus: Client, project: str) -> str:
    """The project as the bus calls it, however the caller spelt it."""
    me = bus.call("whoami")
    if project not in (me["project"], f"{me['handle']}/{me['project']}"):
        raise CliError(f"The token is of project {me['project']}, not of {project}.")
    return str(me["project"])


def _encode_event(event: dict[str, Any]) -> bytes:
    """The one spelling of an event; without `mine`, which depends on who asks."""
    facts = {name: event[name] for name in _EVENT_FIELDS}
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _parse_object(raw: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(raw)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _read_last_event(path: Path) -> tuple[int, bytes]:
    """The number of the last event of a file, and its line; a line that a broken run left half is cut off."""
    if not path.exists():
        return 0, b""
    last, whole = b"", 0
    with path.open("rb") as lines:
        for raw in lines:
            if not raw.endswith(b"\n"):
                break
            last, whole = raw, whole + len(raw)
    if whole < path.stat().st_size:
        os.truncate(path, whole)
    if not last:
        return 0, b""
    found = _parse_object(last)
    if found is None or not isinstance(found.get("id"), int):
        raise CliError(f"{path} is no mirror of a ledger; give an empty folder.")
    return found["id"], last


def _append_events(path: Path, events: Iterable[dict[str, Any]], head: int) -> int:
    """Write the events behind those that are there; the file is made even if there are none."""
    count = 0
    with path.open("ab") as out:
        for number, event in zip(itertools.count(head + 1), events, strict=False):
            if event["id"] != number:
                raise CliError(f"The bus answered with event {event['id']} where {number} was due.")
            out.write(_encode_event(event))
            count += 1
    return count


def _replace_file(path: Path, data: bytes) -> None:
    half = path.with_name(f".{path.name}.new")
    half.write_bytes(data)
    os.replace(half, path)


def _render_section(title: str, headers: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    yield from (f"## {title}", "")
    found = [f"| {' | '.join(_escape_cell(value) for value in row)} |" for row in rows]
    if found:
        yield from (f"| {' | '.join(headers)} |", f"|{'---|' * len(headers)}", *found, "")
    else:
        yield from ("None.", "")


def _format_blocker(found: dict[str, Any]) -> str:
    return " ".join(str(part) for part in (found["on"], found["reason"]) if part is not None)


def _escape_cell(value: Any) -> str:
    """What somebody wrote, so that it stays in its cell and is no markup of ours."""
    text = "" if value is None else " ".join(str(value).split())
    for char in "\\`*_[]<>|":
        text = text.replace(char, f"\\{char}")
    return text
