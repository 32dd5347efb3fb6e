"""Whether the service is well, and if not what is wrong and what to do first: the sentence at the top of the console.

Nothing is read here; what is judged is a `Condition`. Each problem has a heading of its own in docs/howto/operate.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bus.operations.process_registry import Process
from bus.operations.status import ServiceDetails, ServiceStatus

# What is wrong, and what only wants a look.
CRITICAL, WARNING = "bad", "warn"
_MAX_HEARTBEAT_AGE_SECONDS = 120.0
_QUEUE_DEPTH_WARNING = 100
_UNMETERED_WARNING_SECONDS, _UNMETERED_CRITICAL_SECONDS = 600.0, 3600.0
# Of all answers in five minutes, and at least so many.
_CRITICAL_ERROR_SHARE, _CRITICAL_MIN_ERRORS = 0.01, 5
_RECENT_CRASH_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be.

    Attributes:
        level: `bad`: people or agents feel it; `warn`: look at it when you can.
        name: of its heading in docs/howto/operate.md.
        what: in a few words, as a part of the sentence at the top.
        then: what to do first.
    """

    severity: str
    name: str
    summary: str
    remedy: str


def diagnose(status: ServiceStatus) -> list[Finding]:
    """Everything that is wrong, what is worst first; nothing where the service is well."""
    found = [*_check_backends(status)]
    if status.details is not None:
        here = [one for one in status.details.processes if not one.is_stale]
        gone = [one for one in status.details.processes if one.is_stale]
        found += _check_processes(here, gone, status.has_redis)
        # What makes all jobs late is said once, and not with their names.
        still = any(problem.name in ("redis", "worker", "beat") for problem in found)
        found += [
            *_check_jobs(status.details, still),
            *_check_error_rate(here),
            *_check_metering(status.details),
        ]
    return sorted(found, key=lambda problem: problem.severity != CRITICAL)


def _check_backends(status: ServiceStatus) -> Iterator[Finding]:
    postgres = status.database
    if postgres is None:
        yield Finding(CRITICAL, "postgresql", "PostgreSQL does not answer", "Nothing works without it. Bring it back.")
    elif not postgres.is_schema_current:
        what = f"the schema is at {postgres.schema_version or 'nothing'} and this version expects {postgres.expected_schema_version}"
        yield Finding(CRITICAL, "migration", what, "Migrate the database, or finish the deployment that is under way.")
    if status.has_redis and status.queue is None:
        yield Finding(
            CRITICAL, "redis", "Redis does not answer", "Tools work, more slowly; jobs stand still. Bring Redis back."
        )
    elif status.queue is not None and status.queue.depth > _QUEUE_DEPTH_WARNING:
        what = f"{status.queue.depth:,} messages wait for a worker"
        yield Finding(WARNING, "queue", what, "Start another worker, or look at what the one there is busy with.")


def _check_processes(live: Sequence[Process], stale: Sequence[Process], has_redis: bool) -> Iterator[Finding]:
    kinds = {one.kind for one in live}
    if not kinds & {"gateway", "serve"}:
        yield Finding(CRITICAL, "gateway", "no gateway runs", "Agents reach nothing. Start one: python -m mcp_gateway.")
    # Without Redis some other scheduler runs the jobs; then their runs alone tell.
    if has_redis and "worker" not in kinds:
        yield Finding(CRITICAL, "worker", "no worker runs", "Nothing happens with time. Start one: python -m workers.")
    if has_redis and "beat" not in kinds:
        yield Finding(CRITICAL, "beat", "no scheduler runs", "Nobody says when. Start one: python -m workers beat.")
    crashed = sorted({one.kind for one in stale if one.age_seconds < _RECENT_CRASH_SECONDS})
    if crashed:
        what = f"{_join_names(crashed)} went away without a word"
        yield Finding(WARNING, "crash", what, "It was killed or its machine is gone. Look at the end of its log.")
    versions = sorted({one.version for one in live})
    if len(versions) > 1:
        what = f"versions {_join_names(versions)} run side by side"
        yield Finding(WARNING, "versions", what, "A deploy is under way, or one process was left behind.")


def _check_jobs(details: ServiceDetails, jobs_blocked: bool) -> Iterator[Finding]:
    beat = details.heartbeat_age_seconds
    workers = any(one.kind == "worker" and not one.is_stale for one in details.processes)
    stuck = not jobs_blocked and workers and beat is not None and beat > _MAX_HEARTBEAT_AGE_SECONDS
    if stuck and beat is not None:
        what = f"scheduler, queue and worker have not worked together for {_format_duration(beat)}"
        yield Finding(CRITICAL, "heartbeat", what, "Restart the worker, then the scheduler; look at their logs.")
    late = [one.name for one in details.jobs if one.is_late and not jobs_blocked and not stuck]
    if late:
        yield Finding(CRITICAL, "late", f"{_format_job_names(late)} {'is' if len(late) == 1 else 'are'} late",
                      "Its last runs and what they said are under Jobs.")  # fmt: skip
    alarms = [one.name for one in details.jobs if one.last_outcome == "alarm"]
    if alarms:
        what = f"{_format_job_names(alarms)} found what must not be"
        yield Finding(CRITICAL, "alarm", what, "Read what it found under Jobs before anything else is changed.")
    failed = [one.name for one in details.jobs if one.last_outcome == "failed"]
    if failed:
        yield Finding(
            WARNING,
            "failed",
            f"{_format_job_names(failed)} failed",
            "It is tried again. What went wrong is under Jobs.",
        )


def _check_error_rate(live: Sequence[Process]) -> Iterator[Finding]:
    errors = sum(int(one.metrics.get("errors_last_5_minutes", 0)) for one in live)
    requests = sum(int(one.metrics.get("requests_last_5_minutes", 0)) for one in live)
    if errors:
        many = errors >= _CRITICAL_MIN_ERRORS and errors > _CRITICAL_ERROR_SHARE * requests
        what = f"{errors:,} of {requests:,} requests failed in five minutes"
        yield Finding(
            CRITICAL if many else WARNING, "errors", what, "The logs of gateway and web say why, one line for each."
        )


def _check_metering(details: ServiceDetails) -> Iterator[Finding]:
    age = details.oldest_unmetered_seconds
    if age is not None and age > _UNMETERED_WARNING_SECONDS:
        what = f"the oldest event that is not billed is {_format_duration(age)} old"
        then = "Nothing is lost: what was not billed is billed later. See how meter_credits ran, under Jobs."
        yield Finding(CRITICAL if age > _UNMETERED_CRITICAL_SECONDS else WARNING, "metering", what, then)


def _format_job_names(names: Sequence[str]) -> str:
    return f"the job{'' if len(names) == 1 else 's'} {_join_names(names)}"


def _join_names(names: Sequence[str]) -> str:
    shown = [*names[:3], *([f"{len(names) - 3} more"] if len(names) > 3 else [])]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _format_duration(seconds: float) -> str:
    return f"{seconds / 3600:.0f} hours" if seconds >= 7200 else f"{max(1, round(seconds / 60))} minutes"
