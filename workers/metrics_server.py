"""What a worker shows to Prometheus: on a port of its own, since it answers nobody else."""

import logging
import threading
from collections.abc import Iterable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client.metrics_core import Metric

from bus.db import Database
from bus.operations.metrics import CONTENT_TYPE, MetricsEndpoint, counter_metric, gauge, histogram, pool_metrics
from workers.job_runner import run_counts, run_durations

_log = logging.getLogger(__name__)
_REQUEST_TIMEOUT_SECONDS = 10


def add_job_metrics(metrics: MetricsEndpoint, db: Database, interval_by_job: Mapping[str, float]) -> None:
    """Let the metrics of a worker hold what its jobs did.

    Args:
        schedule: seconds between two runs, by job.
    """

    def read() -> Iterable[Metric]:
        yield counter_metric("job_runs", "Runs of jobs in this process.", run_counts, ("job", "outcome"))
        yield histogram("job_run_seconds", "How long runs of jobs took.", run_durations, ("job",))
        every = {(name,): seconds for name, seconds in interval_by_job.items()}
        yield gauge("job_interval_seconds", "How often a job is to run.", every, ("job",))
        yield from pool_metrics(db, "worker")

    metrics.add_source(read)


def start_server(metrics: MetricsEndpoint, host: str, port: int) -> ThreadingHTTPServer | None:
    """Answer /metrics from a thread; None where the port is taken, which is logged and stops no worker."""

    class Handler(BaseHTTPRequestHandler):
        timeout = _REQUEST_TIMEOUT_SECONDS

        def do_GET(self) -> None:
            status = metrics.authorize(self.headers.get("Authorization")) if self.path == "/metrics" else 404
            text = metrics.render() if status == 200 else b""
            self.send_response(status)
            if status == 401:
                self.send_header("WWW-Authenticate", "Bearer")
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *_: object) -> None:
            """Who asks, asks every few seconds."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        _log.error("no metrics are shown: port %d: %s", port, error)
        return None
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return server
