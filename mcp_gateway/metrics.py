"""What a gateway shows to Prometheus: its calls, its threads, and what it holds open."""

from collections.abc import Callable, Iterable

from prometheus_client.metrics_core import Metric

from bus.operations.counters import Tally
from bus.operations.metrics import counter, gauge, histogram, of_tally, pool
from mcp_gateway.service import Service


def collect(service: Service, requests: Tally) -> Callable[[], Iterable[Metric]]:
    """The metrics of one gateway.

    Args:
        requests: its HTTP requests by status.
    """

    def read() -> Iterable[Metric]:
        yield of_tally("tool_calls", "Tool calls by tool and outcome.", service.calls, ("tool", "outcome"))
        yield histogram("tool_call_seconds", "How long tool calls took, all outcomes.", service.timings, ("tool",))
        yield of_tally("gateway_requests", "HTTP requests to the gateway.", requests, ("status",))
        yield gauge("gateway_threads", "Threads that run engine calls.", service.settings.threads)
        yield gauge("gateway_busy_threads", "Threads that run a call.", min(service.pending, service.settings.threads))
        yield gauge("gateway_queued_calls", "Calls that wait for a thread.", service.queued)
        yield gauge("gateway_queue_limit", "Calls that may wait for a thread.", service.settings.queue_limit)
        yield gauge("gateway_waiting_calls", "Calls of wait_for that are held open.", service.waiters.count)
        yield gauge("gateway_open_streams", "Streams that are held open.", service.streams.count)
        yield gauge("hints_connected", "Whether hints of other processes arrive.", service.hints.connected)
        yield counter("hints_sent", "Messages with hints that went out.", service.hints.sent)
        yield counter("hints_heard", "Messages with hints that came from others.", service.hints.heard)
        yield from pool(service.db, "gateway")

    return read
