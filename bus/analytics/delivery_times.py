"""How long posts waited until their recipients saw and acked them, by reachability and by client of the recipient."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from bus.rules.client_names import CLIENT_LABELS
from bus.rules.enums import WAKE_KINDS
from bus.rules.percentiles import compute_quantiles


@dataclass(frozen=True, slots=True)
class DeliveryTimes:
    """Deliveries of one group of recipients. Times begin when the post was written; None if there are none.

    Attributes:
        group: how the recipients could be reached when the post was written (bus/rules/enums.py), or their client
            (bus/rules/client_names.py).
        delivered: all deliveries.
        seen, acked: those that the recipient was shown, and acked.
    """

    group: str
    delivered: int
    seen: int
    seen_median_seconds: float | None
    seen_p90_seconds: float | None
    acked: int
    ack_median_seconds: float | None
    ack_p90_seconds: float | None


@dataclass(frozen=True, slots=True)
class DeliveryStats:
    """Deliveries by group; groups without a delivery are left out.

    Attributes:
        by_wake: most reachable first.
        by_client: most deliveries first.
    """

    by_wake: tuple[DeliveryTimes, ...] = ()
    by_client: tuple[DeliveryTimes, ...] = ()


class DeliveryCounts:
    """Running counts of deliveries, and of their times until they were seen and acked."""

    def __init__(self) -> None:
        self._delivered: dict[str, Counter[str]] = {"wake": Counter(), "client": Counter()}
        self._times: dict[tuple[str, str, str], Counter[float]] = {}

    def add_delivered(self, wake: str, client: str, count: int) -> None:
        """Add deliveries."""
        self._delivered["wake"][wake] += count
        self._delivered["client"][client] += count

    def add_times(self, metric: str, wake: str, client: str, counts: Iterable[tuple[float, int]]) -> None:
        """Add counts of deliveries by seconds; `metric` is `seen` or `acked`."""
        times = Counter(dict(counts))
        for dimension, group in (("wake", wake), ("client", client)):
            self._times.setdefault((metric, dimension, group), Counter()).update(times)

    def build(self) -> DeliveryStats:
        """Return the statistics of what was added."""
        clients = sorted(CLIENT_LABELS, key=lambda client: -self._delivered["client"][client])
        return DeliveryStats(by_wake=self._list("wake", WAKE_KINDS), by_client=self._list("client", clients))

    def _list(self, dimension: str, groups: Iterable[str]) -> tuple[DeliveryTimes, ...]:
        return tuple(
            self._build_times(dimension, group, delivered)
            for group in groups
            if (delivered := self._delivered[dimension][group])
        )

    def _build_times(self, dimension: str, group: str, delivered: int) -> DeliveryTimes:
        seen, acked = (self._times.get((metric, dimension, group), Counter()) for metric in ("seen", "acked"))
        seen_median, seen_p90 = compute_quantiles(seen, (0.5, 0.9))
        ack_median, ack_p90 = compute_quantiles(acked, (0.5, 0.9))
        return DeliveryTimes(
            group=group,
            delivered=delivered,
            seen=seen.total(),
            seen_median_seconds=seen_median,
            seen_p90_seconds=seen_p90,
            acked=acked.total(),
            ack_median_seconds=ack_median,
            ack_p90_seconds=ack_p90,
        )
