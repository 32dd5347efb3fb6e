"""Health diagnosis: the findings that make up the health line at the top of the operator console.

Derives findings from a `ServiceStatus` and reads nothing itself. Each finding has its own heading in
docs/howto/operate.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bus.operations.process_registry import Process
from bus.operations.status import ServiceDetails, ServiceStatus

# Severities: users are affected, or the operator should look when there is time.
CRITICAL, WARNING = "bad", "warn"
_MAX_HEARTBEAT_AGE_SECONDS = 120.0
_QUEUE_DEPTH_WARNING = 100
_UNMETERED_WARNING_SECONDS, _UNMETERED_CRITICAL_SECONDS = 600.0, 3600.0
# Share of all requests within five minutes, and the least number of errors.
_CRITICAL_ERROR_SHARE, _CRITICAL_MIN_ERRORS = 0.01, 5
_RECENT_CRASH_SECONDS = 900.0
_MANY_SILENT_WEBHOOKS = 5


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem of the service.

    Attributes:
        severity: `bad` (CRITICAL): people or agents are affected; `warn` (WARNING): look at it when there is time.
        name: heading in docs/howto/operate.md.
        summary: a few words that become a part of the health line; begins in lower case.
        remedy: the first thing to do, in sentences.
    """

    severity: str
    name: str
    summary: str
    remedy: str


def diagnose(status: ServiceStatus) -> list[Finding]:
    """Return all problems, critical ones first; empty if the service is healthy."""
    findings = [*_check_backends(status)]
    if status.details is not None:
        live = [process for process in status.details.processes if not process.is_stale]
        stale = [process for process in status.details.processes if process.is_stale]
        findings += _check_processes(live, stale, status.has_redis)
        # A cause that makes all jobs late is reported once, without the names of the jobs.
        jobs_blocked = any(finding.name in ("redis", "worker", "beat") for finding in findings)
        findings += [
            *_check_jobs(status.details, jobs_blocked),
            *_check_error_rate(live),
            *_check_metering(status.details),
            *_check_delivery(status.details),
        ]
    return sorted(findings, key=lambda finding: finding.severity != CRITICAL)


def _check_backends(status: ServiceStatus) -> Iterator[Finding]:
    postgres = status.database
    if postgres is None:
        yield Finding(CRITICAL, "postgresql", "PostgreSQL does not answer", "Nothing works without it. Restore it.")
    elif not postgres.is_schema_current:
        found_version, expected_version = postgres.schema_version or "nothing", postgres.expected_schema_version
        yield Finding(
            CRITICAL,
            "migration",
            f"the schema is at {found_version} and this version expects {expected_version}",
            "Migrate the database, or finish the deployment in progress.",
        )
    if status.has_redis and status.queue is None:
        yield Finding(
            CRITICAL, "redis", "Redis does not answer", "Tools are slower and no job runs until it answers. Restore it."
        )
    elif status.queue is not None and status.queue.depth > _QUEUE_DEPTH_WARNING:
        yield Finding(
            WARNING,
            "queue",
            f"{status.queue.depth:,} messages wait for a worker",
            "Start another worker, or find the job that occupies the running one.",
        )


def _check_processes(live: Sequence[Process], stale: Sequence[Process], has_redis: bool) -> Iterator[Finding]:
    kinds = {process.kind for process in live}
    if not kinds & {"gateway", "serve"}:
        yield Finding(CRITICAL, "gateway", "no gateway runs", "Agents cannot reach the service. Start a gateway.")
    # Without Redis another scheduler runs the jobs, and only their runs are evidence.
    if has_redis and "worker" not in kinds:
        yield Finding(CRITICAL, "worker", "no worker runs", "No job runs. Start a worker.")
    if has_redis and "beat" not in kinds:
        yield Finding(CRITICAL, "beat", "no scheduler runs", "No job becomes due. Start the scheduler.")
    crashed_kinds = sorted({process.kind for process in stale if process.age_seconds < _RECENT_CRASH_SECONDS})
    if crashed_kinds:
        yield Finding(
            WARNING,
            "crash",
            f"{_join_names(crashed_kinds)} stopped without signing off",
            "The process was killed or its machine is gone. Look at the end of its log.",
        )
    versions = sorted({process.version for process in live})
    if len(versions) > 1:
        yield Finding(
            WARNING,
            "versions",
            f"versions {_join_names(versions)} run side by side",
            "A deployment is in progress, or one process was not restarted.",
        )


def _check_jobs(details: ServiceDetails, jobs_blocked: bool) -> Iterator[Finding]:
    heartbeat_age = details.heartbeat_age_seconds
    has_worker = any(process.kind == "worker" and not process.is_stale for process in details.processes)
    is_stuck = False
    if not jobs_blocked and has_worker and heartbeat_age is not None and heartbeat_age > _MAX_HEARTBEAT_AGE_SECONDS:
        is_stuck = True
        yield Finding(
            CRITICAL,
            "heartbeat",
            f"scheduler, queue and worker have not worked together for {_format_duration(heartbeat_age)}",
            "Restart the worker, then the scheduler; look at their logs.",
        )
    late = [job.name for job in details.jobs if job.is_late and not jobs_blocked and not is_stuck]
    if late:
        yield Finding(
            CRITICAL,
            "late",
            f"{_format_job_names(late)} {'is' if len(late) == 1 else 'are'} late",
            "The last runs and their errors are under Jobs.",
        )
    alarms = [job.name for job in details.jobs if job.last_outcome == "alarm"]
    if alarms:
        yield Finding(
            CRITICAL,
            "alarm",
            f"{_format_job_names(alarms)} found a violated invariant",
            "Read the details under Jobs before you change anything else.",
        )
    failed = [job.name for job in details.jobs if job.last_outcome == "failed"]
    if failed:
        yield Finding(
            WARNING, "failed", f"{_format_job_names(failed)} failed", "It will be retried. The error is under Jobs."
        )


def _check_error_rate(live: Sequence[Process]) -> Iterator[Finding]:
    errors = sum(int(process.metrics.get("errors_last_5_minutes", 0)) for process in live)
    requests = sum(int(process.metrics.get("requests_last_5_minutes", 0)) for process in live)
    if errors:
        is_critical = errors >= _CRITICAL_MIN_ERRORS and errors > _CRITICAL_ERROR_SHARE * requests
        yield Finding(
            CRITICAL if is_critical else WARNING,
            "errors",
            f"{errors:,} of {requests:,} requests failed in five minutes",
            "The logs of gateway and web have one line for each.",
        )


def _check_metering(details: ServiceDetails) -> Iterator[Finding]:
    age = details.oldest_unmetered_seconds
    if age is not None and age > _UNMETERED_WARNING_SECONDS:
        yield Finding(
            CRITICAL if age > _UNMETERED_CRITICAL_SECONDS else WARNING,
            "metering",
            f"the oldest unbilled event is {_format_duration(age)} old",
            "No event is lost: it is billed later. See the runs of meter_credits under Jobs.",
        )


def _check_delivery(details: ServiceDetails) -> Iterator[Finding]:
    if any(breaker.owner is None for breaker in details.open_breakers):
        yield Finding(
            CRITICAL, "mail", "the mail server does not answer", "No e-mail is sent; nothing is lost. See the log."
        )
    # One webhook that does not answer concerns its owner, who sees it in the log of deliveries.
    waiting = [breaker for breaker in details.open_breakers if breaker.owner is not None]
    if len(waiting) >= _MANY_SILENT_WEBHOOKS:
        yield Finding(
            WARNING,
            "webhooks",
            f"{len(waiting)} hosts of webhooks do not answer",
            "With so many at once, check this machine's own network and DNS.",
        )


def _format_job_names(names: Sequence[str]) -> str:
    return f"the job{'' if len(names) == 1 else 's'} {_join_names(names)}"


def _join_names(names: Sequence[str]) -> str:
    parts = [*names[:3], *([f"{len(names) - 3} more"] if len(names) > 3 else [])]
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _format_duration(seconds: float) -> str:
    return f"{seconds / 3600:.0f} hours" if seconds >= 7200 else f"{max(1, round(seconds / 60))} minutes"
