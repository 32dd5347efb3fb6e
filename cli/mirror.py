"""Export of a project's ledger and state as files for git, read over MCP and written only when they differ.

OUT/ledger.jsonl holds every event once, in order, one canonical line each; a run appends the events that are missing.
OUT/state.md holds the present state. Neither contains the time of the run or other values that change by themselves,
so the files change only when the project does.
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
    """The result of an export: `events` in total, `added` by this run, and whether the state file changed."""

    project: str
    events: int
    added: int
    state_changed: bool


def export(bus: Client, project: str, out: Path) -> ExportResult:
    """Bring the mirror files of a project up to date.

    Raises:
        CliError: the token belongs to another project; the files are not a mirror, or mirror another ledger.
    """
    project = _require_token_project(bus, project)
    out.mkdir(parents=True, exist_ok=True)
    path = out / LEDGER_FILE
    head, last = _read_last_event(path)
    if head:
        # Re-read the last event: if it differs, the file mirrors another ledger.
        event = next(iter(bus.iter_events(head - 1)), None)
        if event is None or _encode_event(event) != last:
            raise CliError(f"{path} ends with an event that this project does not have; it mirrors another project.")
    added = _append_events(path, bus.iter_events(head), head)
    state = render_state(bus, project, head + added)
    changed = not (out / STATE_FILE).exists() or (out / STATE_FILE).read_bytes() != state
    if changed:
        _replace_file(out / STATE_FILE, state)
    return ExportResult(project, head + added, added, changed)


def verify(bus: Client, out: Path) -> list[str]:
    """Compare a mirror with the bus and return one sentence per difference.

    A mirror that ends before the ledger is outdated, which is not a difference.

    Raises:
        CliError: there is no mirror.
    """
    path = out / LEDGER_FILE
    if not path.exists():
        raise CliError(f"{path} does not exist.", ExitCode.NOT_FOUND)
    differences: list[str] = []
    events = bus.iter_events(0)
    count = 0
    with path.open("rb") as lines:
        for count, raw in enumerate(lines, 1):
            if not raw.endswith(b"\n"):
                differences.append(f"line {count} is incomplete")
                break
            mirrored = _parse_object(raw)
            if mirrored is None or mirrored.get("id") != count:
                differences.append(f"line {count} does not hold event {count}: the mirror is not contiguous")
                break
            event = next(events, None)
            if event is None:
                differences.append(f"line {count} holds an event that the bus does not have")
                break
            if _encode_event(event) != raw:
                differences.append(f"line {count} differs from event {count} of the bus")
                break
    if not differences and next(events, None) is None:
        project = bus.call("whoami")["project"]
        state = out / STATE_FILE
        if not state.exists() or state.read_bytes() != render_state(bus, project, count):
            differences.append(f"{state} differs from the state of the bus")
    return differences


def render_state(bus: Client, project: str, event_count: int) -> bytes:
    """Render the state as Markdown: sequences, tasks, leases, unacknowledged handoffs."""
    parts = [f"# {_escape_cell(project)}", "", f"The ledger has {event_count} events.", ""]
    sequences = [
        (sequence["name"], sequence["last_used"], sequence["next_formatted"])
        for sequence in bus.iter_rows("list_sequences", "sequences")
    ]
    parts += _render_section("Sequences", ("sequence", "last used", "next"), sequences)
    tasks = sorted(bus.iter_rows("list_tasks", "tasks", limit=200), key=lambda task: task["task_id"])
    open_tasks = [task for task in tasks if task["status"] != "done"]
    parts += _render_section(
        "Open tasks",
        ("task", "status", "priority", "lane", "owner", "waits for", "title"),
        [
            (
                task["task_id"],
                task["status"],
                task.get("priority", 2),
                task["lane"],
                task["owner"],
                "; ".join(_format_blocker(blocker) for blocker in task["blockers"]),
                task["title"],
            )
            for task in open_tasks
        ],
    )
    parts += [f"{len(tasks) - len(open_tasks)} tasks are done.", ""]
    leases = sorted(bus.iter_rows("who_holds", "leases"), key=lambda lease: lease["fence"])
    # Fields that say nothing are left out of an answer: an exclusive mode, a usual priority, no ack.
    lease_rows = [
        (lease["surface"], lease["actor"], lease.get("mode", "exclusive"), lease["expires_at"], lease["note"])
        for lease in leases
    ]
    parts += _render_section("Leases", ("surface", "held by", "mode", "until", "note"), lease_rows)
    posts = bus.call("read_posts", limit=200)["posts"]
    parts += _render_section(
        "Handoffs without an ack (of the newest 200 posts)",
        ("post", "from", "to", "subject", "ref"),
        [
            (
                post["post_id"],
                post["from"],
                " ".join(name for name in (post["to_lane"], post["to_actor"]) if name),
                post["subject"],
                post["ref"],
            )
            for post in reversed(posts)
            if not post.get("acked_by")
        ],
    )
    return "\n".join(parts).rstrip("\n").encode() + b"\n"


def _require_token_project(bus: Client, project: str) -> str:
    """Return the project's name; `project` may be qualified with the owner's handle."""
    caller = bus.call("whoami")
    if project not in (caller["project"], f"{caller['handle']}/{caller['project']}"):
        raise CliError(f"The token belongs to project {caller['project']}, not to {project}.")
    return str(caller["project"])


def _encode_event(event: dict[str, Any]) -> bytes:
    """Encode an event in its canonical form; without `mine`, which depends on the caller."""
    facts = {name: event[name] for name in _EVENT_FIELDS}
    return json.dumps(facts, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def _parse_object(raw: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(raw)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _read_last_event(path: Path) -> tuple[int, bytes]:
    """Return the number and the line of the last event in a file; truncate a line that an interrupted run left."""
    if not path.exists():
        return 0, b""
    last, complete_bytes = b"", 0
    with path.open("rb") as lines:
        for raw in lines:
            if not raw.endswith(b"\n"):
                break
            last, complete_bytes = raw, complete_bytes + len(raw)
    if complete_bytes < path.stat().st_size:
        os.truncate(path, complete_bytes)
    if not last:
        return 0, b""
    event = _parse_object(last)
    if event is None or not isinstance(event.get("id"), int):
        raise CliError(f"{path} is not a mirror of a ledger; choose an empty folder.")
    return event["id"], last


def _append_events(path: Path, events: Iterable[dict[str, Any]], head: int) -> int:
    """Append events to the file, which is created even if there are none."""
    count = 0
    with path.open("ab") as out:
        for number, event in zip(itertools.count(head + 1), events, strict=False):
            if event["id"] != number:
                raise CliError(f"The bus returned event {event['id']} instead of event {number}.")
            out.write(_encode_event(event))
            count += 1
    return count


def _replace_file(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.new")
    draft.write_bytes(data)
    os.replace(draft, path)


def _render_section(title: str, headers: tuple[str, ...], rows: Iterable[tuple[Any, ...]]) -> Iterator[str]:
    yield from (f"## {title}", "")
    lines = [f"| {' | '.join(_escape_cell(value) for value in row)} |" for row in rows]
    if lines:
        yield from (f"| {' | '.join(headers)} |", f"|{'---|' * len(headers)}", *lines, "")
    else:
        yield from ("None.", "")


def _format_blocker(blocker: dict[str, Any]) -> str:
    return " ".join(str(part) for part in (blocker["on"], blocker["reason"]) if part is not None)


def _escape_cell(value: Any) -> str:
    """Escape text of participants, so that it stays in its table cell and is not read as Markdown."""
    text = "" if value is None else " ".join(str(value).split())
    for char in "\\`*_[]<>|":
        text = text.replace(char, f"\\{char}")
    return text
