"""The Prometheus endpoint of a worker, on a port of its own because a worker serves no other HTTP."""

import logging
import threading
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client.metrics_core import Metric

from bus.db import Database
from bus.operations.metrics import CONTENT_TYPE, MetricsEndpoint, gauge, pool_metrics
from workers.job_runner import run_counts, run_durations

_log = logging.getLogger(__name__)
_REQUEST_TIMEOUT_SECONDS = 10


def add_job_metrics(metrics: MetricsEndpoint, db: Database, interval_by_job: Mapping[str, float]) -> None:
    """Add the metrics of jobs to a worker's endpoint.

    Args:
        interval_by_job: seconds between two runs.
    """

    def read() -> Iterable[Metric]:
        yield from run_counts.collect()
        yield from run_durations.collect()
        intervals = {(name,): seconds for name, seconds in interval_by_job.items()}
        yield gauge("job_interval_seconds", "Interval between two runs of a job.", intervals, ("job",))
        yield from pool_metrics(db, "worker")

    metrics.add_source(read)


def start_server(metrics: MetricsEndpoint, host: str, port: int) -> ThreadingHTTPServer | None:
    """Serve /metrics from a thread; if the port is taken, log an error and return None."""

    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_TIMEOUT_SECONDS

        def do_GET(self) -> None:
            status = metrics.authorize(self.headers.get("Authorization")) if self.path == "/metrics" else 404
            body = metrics.render() if status == 200 else b""
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", "Bearer")
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Log nothing: Prometheus scrapes every few seconds."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        _log.error("metrics are not served: port %d: %s", port, error)
        return None
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
