"""Prometheus metrics of a gateway: calls, threads, long polls, streams and change notifications."""

from collections.abc import Callable, Iterable

from prometheus_client.metrics_core import Metric

from bus.operations.counters import Counter
from bus.operations.metrics import counter, gauge, pool_metrics
from mcp_gateway.service import Service


def build_collector(service: Service, request_counts: Counter) -> Callable[[], Iterable[Metric]]:
    """Return the collector of one gateway's metrics.

    Args:
        service: the gateway's service.
        request_counts: its HTTP requests by status.
    """

    def collect() -> Iterable[Metric]:
        engine = service.engine
        yield from service.tool_runner.calls.collect()
        yield from service.tool_runner.durations.collect()
        yield from request_counts.collect()
        yield gauge("gateway_threads", "Threads that run engine calls.", engine.thread_count)
        yield gauge("gateway_busy_threads", "Threads that run a call.", min(engine.pending_calls, engine.thread_count))
        yield gauge("gateway_queued_calls", "Calls that wait for a thread.", engine.queued_calls)
        yield gauge("gateway_queue_limit", "Calls that may wait for a thread.", engine.queue_limit)
        yield gauge("gateway_waiting_calls", "Open wait_for calls.", service.long_polls.count)
        yield gauge("gateway_open_streams", "Open streams.", service.streams.count)
        notifier = service.change_notifier
        yield gauge(
            "hints_connected", "Whether change notifications from other processes arrive.", notifier.is_connected
        )
        yield counter("hints_sent", "Messages with change notifications sent.", notifier.sent_count)
        yield counter(
            "hints_heard", "Messages with change notifications received from other processes.", notifier.received_count
        )
        yield from pool_metrics(engine.db, "gateway")

    return collect
