"""Diagnostics: the findings behind the health line of the operator console."""

import dataclasses
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bus.db.schema_version import EXPECTED_SCHEMA_VERSION
from bus.notifications.circuit_breaker import OpenBreaker
from bus.operations import health_summary
from bus.operations.process_registry import Process
from bus.operations.status import DatabaseStatus, JobStatus, LedgerGrowth, QueueStatus, ServiceDetails, ServiceStatus

_NOW = datetime(2026, 1, 1, tzinfo=UTC)


def _process(kind: str, *, age: float = 1.0, version: str = "1", **metrics: int) -> Process:
    return Process(
        id=kind, kind=kind, host="host", pid=1, version=version, started_at=_NOW, seen_at=_NOW, age_seconds=age,
        uptime_seconds=900.0, settings={}, metrics=metrics,
    )  # fmt: skip


_HEALTHY = ServiceStatus(
    DatabaseStatus("18.1", EXPECTED_SCHEMA_VERSION, EXPECTED_SCHEMA_VERSION, 0.001),
    True,
    QueueStatus(0.001, 0),
    ServiceDetails(
        processes=tuple(_process(kind) for kind in ("web", "gateway", "worker", "beat")),
        jobs=(JobStatus("heartbeat", "ok", 20, 30, False), JobStatus("prune", "ok", 200, 3600, False)),
        ledger_growth=LedgerGrowth(0, 0, 0),
        tables=(),
        metering_enabled=True,
        oldest_unmetered_seconds=20.0,
        unread_deliveries=3,
        waiting_calls=0,
        open_streams=0,
        heartbeat_age_seconds=20.0,
    ),
)


def _with(**changes: object) -> ServiceStatus:
    assert _HEALTHY.details is not None
    return dataclasses.replace(_HEALTHY, details=dataclasses.replace(_HEALTHY.details, **changes))  # type: ignore[arg-type]


def _without(*kinds: str) -> ServiceStatus:
    assert _HEALTHY.details is not None
    return _with(processes=tuple(process for process in _HEALTHY.details.processes if process.kind not in kinds))


def _and(*more: Process) -> ServiceStatus:
    assert _HEALTHY.details is not None
    return _with(processes=(*_HEALTHY.details.processes, *more))


def _breaker(owner: str | None) -> OpenBreaker:
    now = datetime.now(UTC)
    return OpenBreaker(owner, "https://hooks.example.org", 3, now, now, "ReadTimeout", 7)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (_HEALTHY, []),
        (ServiceStatus(None, True, _HEALTHY.queue, None), [("bad", "postgresql")]),
        (
            dataclasses.replace(_HEALTHY, database=DatabaseStatus("18", "0001", EXPECTED_SCHEMA_VERSION, 0.1)),
            [("bad", "migration")],
        ),
        (dataclasses.replace(_HEALTHY, queue=None), [("bad", "redis")]),
        (dataclasses.replace(_HEALTHY, queue=None, has_redis=False), []),
        (dataclasses.replace(_HEALTHY, queue=QueueStatus(0.001, 101)), [("warn", "queue")]),
        (_without("gateway"), [("bad", "gateway")]),
        (_without("worker", "beat"), [("bad", "worker"), ("bad", "beat")]),
        (dataclasses.replace(_without("worker", "beat"), queue=None, has_redis=False), []),
        (_and(_process("serve")), []),
        (_and(_process("gateway", age=100)), [("warn", "crash")]),
        (_and(_process("gateway", age=5000)), []),
        (_and(_process("web", version="2")), [("warn", "versions")]),
        (_with(heartbeat_age_seconds=300.0), [("bad", "heartbeat")]),
        (_with(jobs=(JobStatus("prune", "ok", 20_000, 3600, True),)), [("bad", "late")]),
        (
            dataclasses.replace(_with(jobs=(JobStatus("prune", "ok", 20_000, 3600, True),)), queue=None),
            [("bad", "redis")],
        ),
        (
            _with(jobs=(JobStatus("prune", "ok", 20_000, 3600, True),), heartbeat_age_seconds=900.0),
            [("bad", "heartbeat")],
        ),
        (_with(jobs=(JobStatus("reconcile", "alarm", 20, 3600, False),)), [("bad", "alarm")]),
        (_with(jobs=(JobStatus("prune", "failed", 20, 3600, False),)), [("warn", "failed")]),
        (_and(_process("web", errors_last_5_minutes=1, requests_last_5_minutes=9)), [("warn", "errors")]),
        (_and(_process("web", errors_last_5_minutes=60, requests_last_5_minutes=900)), [("bad", "errors")]),
        (_and(_process("web", errors_last_5_minutes=60, requests_last_5_minutes=90_000)), [("warn", "errors")]),
        (_with(oldest_unmetered_seconds=1000.0), [("warn", "metering")]),
        (_with(oldest_unmetered_seconds=10_000.0), [("bad", "metering")]),
        (_with(oldest_unmetered_seconds=None), []),
        (_with(open_breakers=(_breaker(None), _breaker("ada"))), [("bad", "mail")]),
        (_with(open_breakers=(_breaker("ada"),) * 4), []),
        (_with(open_breakers=(_breaker("ada"),) * 5), [("warn", "webhooks")]),
    ],
)
def test_each_problem_has_its_finding(status: ServiceStatus, expected: list[tuple[str, str]]) -> None:
    findings = health_summary.diagnose(status)
    assert [(finding.severity, finding.name) for finding in findings] == expected
    assert all(finding.summary and finding.remedy.endswith(".") for finding in findings)


def test_critical_findings_come_first_and_long_lists_of_names_are_cut() -> None:
    late = tuple(JobStatus(f"job_{number}", "ok", 9999, 10, True) for number in range(5))
    findings = health_summary.diagnose(dataclasses.replace(_with(jobs=late), queue=QueueStatus(0.001, 1000)))
    assert [finding.severity for finding in findings] == ["bad", "warn"]
    assert findings[0].summary == "the jobs job_0, job_1, job_2 and 2 more are late"


def test_the_operators_guide_has_a_heading_for_every_finding() -> None:
    finding = r'Finding\(\s*(?:CRITICAL|WARNING|CRITICAL if [^,]+ else WARNING),\s*"([a-z]+)"'
    names = set(re.findall(finding, Path(health_summary.__file__).read_text()))
    guide = (Path(health_summary.__file__).parents[2] / "docs/howto/operate.md").read_text()
    assert len(names) >= 13
    assert {name for name in names if f"\n### {name}\n" not in guide} == set()
