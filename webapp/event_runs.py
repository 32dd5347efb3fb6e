"""Events as the rows of a list: days, and consecutive acks of one participant as one row."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

from bus.coordination.ledger import Event


@dataclass(slots=True)
class EventRun:
    """One row.

    Attributes:
        events: one event, or several acks, newest first.
        day: the day in UTC, if the row before is of another day.
    """

    events: list[Event]
    day: date | None


def event_runs(events: Iterable[Event]) -> list[EventRun]:
    """Group events, newest first, into rows."""
    runs: list[EventRun] = []
    for event in events:
        day = event.ts.astimezone(UTC).date()
        last = runs[-1].events[-1] if runs else None
        is_same_day = last is not None and last.ts.astimezone(UTC).date() == day
        if (
            last is not None
            and is_same_day
            and event.type == last.type == "ack"
            and event.actor == last.actor
            and event.id == last.id - 1
        ):
            runs[-1].events.append(event)
        else:
            runs.append(EventRun([event], None if is_same_day else day))
    return runs


def day_name(day: date) -> str:
    """`Today`, `Yesterday`, or the date, in UTC."""
    days = (datetime.now(UTC).date() - day).days
    return {0: "Today", 1: "Yesterday"}.get(days) or f"{day:%A, %-d %B %Y}"


def find_titled_posts(events: Sequence[Event]) -> set[int]:
    """The ids of posts whose titles the rows of events show, because their events do not contain them."""
    ids = {event.payload["post_id"] for event in events if event.payload.get("post_id")}
    return ids | {event.id for event in events if event.type == "post" and not event.payload.get("subject")}
