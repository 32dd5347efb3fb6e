"""The generated reference pages are up to date, and agree with what the programs do."""

import re
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import get_args

import pytest

from bus.coordination import expiry, leases, presence, sessions, task_edits, tasks
from bus.coordination.task_edits import TaskTexts
from bus.db import Connection
from bus.errors import ERROR_MEANINGS, BusError, ErrorCode
from bus.rules.enums import EVENT_TYPES
from bus.rules.event_payloads import EVENT_PAYLOADS
from cli.reference.__main__ import PAGES
from cli.reference.metrics import MODULES, list_metrics
from tests import scenarios
from tests.bus.conftest import _shared_db, conn  # noqa: F401 - fixtures

_REFERENCE = Path(__file__).resolve().parents[2] / "docs" / "reference"


@pytest.mark.parametrize("name", PAGES)
def test_a_page_in_the_repository_is_up_to_date(name: str) -> None:
    assert (_REFERENCE / name).read_text(encoding="utf-8") == PAGES[name](), "run `make docs`"


def test_every_code_and_every_event_type_is_described() -> None:
    assert set(ERROR_MEANINGS) == set(get_args(ErrorCode))
    assert list(EVENT_PAYLOADS) != []
    assert set(EVENT_PAYLOADS) == set(EVENT_TYPES)


def test_events_have_the_fields_that_their_page_lists(conn: Connection) -> None:  # noqa: F811
    scene = scenarios.create_scenario(conn)
    ctx = scene.caller.ctx
    for name in scenarios.WRITE_CALLS.keys() - set(scenarios.ADMIN_CALLS):
        # Some calls exclude each other.
        with suppress(BusError), conn.raw.transaction():
            scenarios.WRITE_CALLS[name](conn, ctx, scene)
    fence = leases.acquire(conn, scene.teammate.ctx, "forced.py").fence
    leases.force_release(conn, ctx, fence)
    leases.acquire(conn, scene.teammate.ctx, "late.py", ttl=timedelta(seconds=5))
    session = scene.teammate.ctx.with_session("a-session-key")
    presence.register(conn, session, "core", status="busy")
    leases.acquire(conn, session, "session.py")
    started = tasks.create(conn, session, "held by a session").task_id
    tasks.start(conn, session, started)
    task_edits.edit(conn, session, started, TaskTexts("edited", "changed", "core", 0))
    sessions.end(conn, session)
    project_id = scene.project.id
    conn.execute("UPDATE lease SET expires_at = clock_timestamp() WHERE surface = 'late.py'")
    conn.execute("UPDATE presence SET last_seen = clock_timestamp() - interval '1 day'")
    conn.execute("UPDATE project SET stall_window_seconds = 60 WHERE id = %s", (project_id,))
    expiry.expire_leases(conn, project_id)
    expiry.record_absent_participants(conn, project_id)
    expiry.requeue_stalled_tasks(conn, project_id)
    written: dict[str, list[set[str]]] = {}
    for event_type, keys in conn.fetch_all(
        "SELECT e.type, ARRAY(SELECT jsonb_object_keys(e.payload)) FROM event e WHERE e.project_id = %s", (project_id,)
    ):
        written.setdefault(event_type, []).append(set(keys))
    # An escalation needs a deadline that is over; tests/bus/coordination/test_escalation.py has its payload.
    assert set(written) >= set(EVENT_TYPES) - {"escalate"}
    for event_type, payloads in written.items():
        fields = EVENT_PAYLOADS[event_type].fields  # type: ignore[index]
        always = {name for name in fields if not name.endswith("?")}
        for keys in payloads:
            assert always <= keys <= {name.removesuffix("?") for name in fields}, event_type
        assert set().union(*payloads) >= always


def test_the_page_of_metrics_has_each_metric_of_the_dashboard() -> None:
    dashboard = (_REFERENCE.parent / "observability" / "dashboard.json").read_text(encoding="utf-8")
    used = {re.sub(r"_(bucket|sum|count)$", "", name) for name in re.findall(r"llm_bus_\w+", dashboard)}
    listed = {metric.name for metric in list_metrics()}
    assert used - listed == set()
    assert len(listed) == len(list_metrics())


def test_the_page_of_metrics_reads_every_module_that_declares_one() -> None:
    root = _REFERENCE.parents[1]
    declaring = re.compile(r"\b(?:gauge|counter|make_counter|make_histogram)\(\s*\"")
    modules = {
        f"{path.parent.relative_to(root).as_posix().replace('/', '.')}/{path.name}"
        for package in ("bus", "mcp_gateway", "webapp", "workers")
        for path in (root / package).rglob("*.py")
        if declaring.search(path.read_text(encoding="utf-8"))
    }
    assert modules == {f"{package}/{module}" for package, files in MODULES.items() for module, _ in files}
