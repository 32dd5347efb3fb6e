"""Tables of the time that handoffs waited for their recipients, with a title that states the result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bus.analytics.delivery_times import DeliveryTimes
from bus.rules.client_names import CLIENT_LABELS
from bus.rules.delivery_labels import WAKE_LABELS
from bus.rules.text_format import format_seconds, format_share


@dataclass(frozen=True, slots=True)
class DeliveryRow:
    """Deliveries of one group of recipients, formatted.

    Attributes:
        unseen: deliveries that were not shown yet.
    """

    label: str
    delivered: int
    unseen: int
    seen_share: str
    seen_median: str
    seen_p90: str
    acked_share: str
    ack_median: str
    ack_p90: str


@dataclass(frozen=True, slots=True)
class DeliveryTable:
    """Deliveries by group of recipients.

    Attributes:
        max_delivered: the length of the longest bar.
    """

    title: str
    rows: list[DeliveryRow]
    max_delivered: int


def build_wake_table(groups: Sequence[DeliveryTimes]) -> DeliveryTable:
    """Build the table by how recipients could be reached when the handoff was written."""
    labels = {
        "waiting": "waiting",
        "listening": "with an open stream",
        "hooks": "in the middle of work",
        "none": "idle",
    }
    return _build_table(
        groups, WAKE_LABELS, _title(groups, {wake: f"recipients {label}" for wake, label in labels.items()})
    )


def build_client_table(groups: Sequence[DeliveryTimes]) -> DeliveryTable:
    """Build the table by the client of the recipient."""
    return _build_table(groups, CLIENT_LABELS, _title(groups, {"unknown": "unknown clients", "other": "other clients"}))


def _title(groups: Sequence[DeliveryTimes], names: Mapping[str, str]) -> str:
    timed = [group for group in groups if group.seen_median_seconds is not None]
    if not timed:
        return "No handoff was seen by its recipients yet"
    fastest = min(timed, key=lambda group: group.seen_median_seconds or 0.0)
    slowest = max(timed, key=lambda group: group.seen_median_seconds or 0.0)
    phrases = [
        f"{format_seconds(group.seen_median_seconds)} by {names.get(group.group) or CLIENT_LABELS[group.group]}"
        for group in ([fastest] if fastest is slowest else [fastest, slowest])
    ]
    return f"Median time until seen: {', '.join(phrases)}"


def _build_table(groups: Sequence[DeliveryTimes], labels: Mapping[str, str], title: str) -> DeliveryTable:
    rows = [
        DeliveryRow(
            labels[group.group],
            group.delivered,
            max(0, group.delivered - group.seen),
            format_share(group.seen, group.delivered),
            format_seconds(group.seen_median_seconds),
            format_seconds(group.seen_p90_seconds),
            format_share(group.acked, group.delivered),
            format_seconds(group.ack_median_seconds),
            format_seconds(group.ack_p90_seconds),
        )
        for group in groups
    ]
    return DeliveryTable(title, rows, max((row.delivered for row in rows), default=0))
