"""Whether the service is well, and if not what is wrong and what to do first: the sentence at the top of the console.

Nothing is read here; what is judged is a `Condition`. Each problem has a heading of its own in docs/howto/operate.md.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bus.operations.process_registry import Process
from bus.operations.status import Condition, Contents

# What is wrong, and what only wants a look.
BAD, WARN = "bad", "warn"
_HEARTBEAT_SECONDS = 120.0
_DEEP_QUEUE = 100
_UNMETERED_WARN, _UNMETERED_BAD = 600.0, 3600.0
# Of all answers in five minutes, and at least so many.
_ERROR_SHARE, _FEW_ERRORS = 0.01, 5
_CRASH_SECONDS = 900.0


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is not as it should be.

    Attributes:
        level: `bad`: people or agents feel it; `warn`: look at it when you can.
        name: of its heading in docs/howto/operate.md.
        what: in a few words, as a part of the sentence at the top.
        then: what to do first.
    """

    level: str
    name: str
    what: str
    then: str


def judge(condition: Condition) -> list[Problem]:
    """Everything that is wrong, what is worst first; nothing where the service is well."""
    found = [*_places(condition)]
    if condition.contents is not None:
        here = [one for one in condition.contents.processes if not one.is_gone]
        gone = [one for one in condition.contents.processes if one.is_gone]
        found += _processes(here, gone, condition.has_redis)
        # What makes all jobs late is said once, and not with their names.
        still = any(problem.name in ("redis", "worker", "beat") for problem in found)
        found += [
            *_jobs(condition.contents, still),
            *_traffic(here),
            *_money(condition.contents),
        ]
    return sorted(found, key=lambda problem: problem.level != BAD)


def _places(condition: Condition) -> Iterator[Problem]:
    postgres = condition.postgres
    if postgres is None:
        yield Problem(BAD, "postgresql", "PostgreSQL does not answer", "Nothing works without it. Bring it back.")
    elif not postgres.is_migrated:
        what = f"the schema is at {postgres.migration or 'nothing'} and this version expects {postgres.expected}"
        yield Problem(BAD, "migration", what, "Run llm-bus migrate, or finish the deploy that is under way.")
    if condition.has_redis and condition.queue is None:
        yield Problem(
            BAD, "redis", "Redis does not answer", "Tools work, more slowly; jobs stand still. Bring Redis back."
        )
    elif condition.queue is not None and condition.queue.depth > _DEEP_QUEUE:
        what = f"{condition.queue.depth:,} messages wait for a worker"
        yield Problem(WARN, "queue", what, "Start another worker, or look at what the one there is busy with.")


def _processes(here: Sequence[Process], gone: Sequence[Process], has_redis: bool) -> Iterator[Problem]:
    kinds = {one.kind for one in here}
    if not kinds & {"gateway", "serve"}:
        yield Problem(BAD, "gateway", "no gateway runs", "Agents reach nothing. Start one: python -m mcp_gateway.")
    # Without Redis some other scheduler runs the jobs; then their runs alone tell.
    if has_redis and "worker" not in kinds:
        yield Problem(BAD, "worker", "no worker runs", "Nothing happens with time. Start one: python -m workers.")
    if has_redis and "beat" not in kinds:
        yield Problem(BAD, "beat", "no scheduler runs", "Nobody says when. Start one: python -m workers beat.")
    crashed = sorted({one.kind for one in gone if one.age_seconds < _CRASH_SECONDS})
    if crashed:
        what = f"{_list(crashed)} went away without a word"
        yield Problem(WARN, "crash", what, "It was killed or its machine is gone. Look at the end of its log.")
    versions = sorted({one.version for one in here})
    if len(versions) > 1:
        what = f"versions {_list(versions)} run side by side"
        yield Problem(WARN, "versions", what, "A deploy is under way, or one process was left behind.")


def _jobs(contents: Contents, still: bool) -> Iterator[Problem]:
    beat = contents.heartbeat_seconds
    workers = any(one.kind == "worker" and not one.is_gone for one in contents.processes)
    stuck = not still and workers and beat is not None and beat > _HEARTBEAT_SECONDS
    if stuck and beat is not None:
        what = f"scheduler, queue and worker have not worked together for {_said(beat)}"
        yield Problem(BAD, "heartbeat", what, "Restart the worker, then the scheduler; look at their logs.")
    late = [one.name for one in contents.jobs if one.is_late and not still and not stuck]
    if late:
        yield Problem(BAD, "late", f"{_jobs_called(late)} {'is' if len(late) == 1 else 'are'} late",
                      "Its last runs and what they said are under Jobs.")  # fmt: skip
    alarms = [one.name for one in contents.jobs if one.outcome == "alarm"]
    if alarms:
        what = f"{_jobs_called(alarms)} found what must not be"
        yield Problem(BAD, "alarm", what, "Read what it found under Jobs before anything else is changed.")
    failed = [one.name for one in contents.jobs if one.outcome == "failed"]
    if failed:
        yield Problem(
            WARN, "failed", f"{_jobs_called(failed)} failed", "It is tried again. What went wrong is under Jobs."
        )


def _traffic(here: Sequence[Process]) -> Iterator[Problem]:
    errors = sum(int(one.figures.get("errors_last_5_minutes", 0)) for one in here)
    requests = sum(int(one.figures.get("requests_last_5_minutes", 0)) for one in here)
    if errors:
        many = errors >= _FEW_ERRORS and errors > _ERROR_SHARE * requests
        what = f"{errors:,} of {requests:,} requests failed in five minutes"
        yield Problem(BAD if many else WARN, "errors", what, "The logs of gateway and web say why, one line for each.")


def _money(contents: Contents) -> Iterator[Problem]:
    age = contents.unmetered_seconds
    if age is not None and age > _UNMETERED_WARN:
        what = f"the oldest event that is not billed is {_said(age)} old"
        then = "Nothing is lost: what was not billed is billed later. See how meter_credits ran, under Jobs."
        yield Problem(BAD if age > _UNMETERED_BAD else WARN, "metering", what, then)


def _jobs_called(names: Sequence[str]) -> str:
    return f"the job{'' if len(names) == 1 else 's'} {_list(names)}"


def _list(names: Sequence[str]) -> str:
    shown = [*names[:3], *([f"{len(names) - 3} more"] if len(names) > 3 else [])]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def _said(seconds: float) -> str:
    return f"{seconds / 3600:.0f} hours" if seconds >= 7200 else f"{max(1, round(seconds / 60))} minutes"
