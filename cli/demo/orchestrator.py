"""The phases of a demo: plan, provision, run, report."""

import asyncio
import sys
import time
from collections import Counter
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from bus.analytics import reports
from bus.analytics.reports import ProjectReport
from bus.auth import login_links
from bus.client_setup import login_link_url
from bus.config.settings import Settings
from bus.db import Database
from bus.tenancy import owners
from cli.demo import history
from cli.demo.check import find_differences
from cli.demo.live import iterate_steps, make_live_plan
from cli.demo.model import Plan
from cli.demo.plan import make_plan
from cli.demo.runner import StepFailedError, is_gateway_reachable, run_live, run_plan
from cli.demo.setup import ProvisionedFleet, provision, revoke_tokens
from cli.demo.temporary import temporary_bus
from cli.exit_codes import CliError, ExitCode
from cli.runtime import settings_for_cli


@dataclass(frozen=True, slots=True)
class DemoResult:
    """The result of a demo; `differences` is empty if the ledgers match the plan."""

    calls: int
    seconds: float
    total_report: ProjectReport
    project_reports: list[ProjectReport]
    differences: list[str]
    used_temporary_bus: bool


def run_demo(agents: int, projects: int, events: int, seed: int, *, owner: str | None, data: Path | None) -> DemoResult:
    """Run a simulated fleet against the bus that runs here, or against a temporary one.

    Raises:
        CliError: the gateway does not respond, or a call failed.
        BusError: `not_found` for the owner.
    """
    plan = make_plan(agents, projects, events, seed)
    with ExitStack() as stack:
        settings, temporary = _enter_bus(stack, data)
        database = stack.enter_context(
            closing(Database(settings.database_url, pool_size=1, application_name="llm-bus demo"))
        )
        fleet = ProvisionedFleet()
        try:
            provision(database, plan, fleet, owner)
            started = time.monotonic()
            _run_with_progress(plan, fleet, settings.mcp_url)
            seconds = time.monotonic() - started
        finally:
            revoke_tokens(database, fleet)
        with database.connection() as conn:
            total = reports.build_combined_report(conn, [project.id for project in fleet.projects])
            by_project = [reports.build_report(conn, project.id) for project in fleet.projects]
    differences = [line for pair in zip(plan.expected, by_project, strict=True) for line in find_differences(*pair)]
    return DemoResult(len(plan.steps), seconds, total, by_project, differences, temporary)


@dataclass(frozen=True, slots=True)
class LiveResult:
    """The result of a live demo: its events by type, and the names of its projects."""

    events_by_type: dict[str, int]
    seconds: float
    projects: list[str]


def run_live_demo(
    agents: int,
    projects: int,
    seed: int,
    *,
    rate: float | None,
    history_days: int,
    events: int,
    owner: str | None,
    data: Path | None,
) -> LiveResult:
    """Let a simulated fleet work, on the bus that runs here or on a temporary one.

    Args:
        rate: events per second until Ctrl-C; None for a history alone.
        history_days: the days before now in which the fleet has worked already; 0 for none.
        events: the number of events of that history.

    Raises:
        CliError: the gateway does not respond, or a call failed.
        BusError: `not_found` for the owner.
    """
    plan, simulations, random = make_live_plan(agents, projects, seed)
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        if rate is None and _find_settings(data) is None:
            raise CliError(
                "No bus is running here that could keep a history; start it, or add --live.", ExitCode.UNAVAILABLE
            )
        settings, is_temporary = _enter_bus(stack, data)
        database = stack.enter_context(
            closing(Database(settings.database_url, pool_size=1, application_name="llm-bus demo"))
        )
        fleet = ProvisionedFleet()
        started = time.monotonic()
        try:
            provision(database, plan, fleet, owner)
            results: list[dict[str, Any]] = []
            if history_days:
                results, past_counts = history.record(
                    database,
                    fleet,
                    lambda should_stop, position, concurrency: iterate_steps(
                        simulations, random, should_stop, position=position, concurrency=concurrency
                    ),
                    events=events,
                    days=history_days,
                    random=random,
                )
                counts.update(past_counts)
            if rate is None:
                return LiveResult(dict(counts), time.monotonic() - started, fleet.project_names)
            click.echo(f"{agents} agents at work; Ctrl-C stops them. Watch: {settings.public_url}/", err=True)
            if is_temporary:
                click.echo(f"Sign in: {_make_login_link(database, fleet, settings.public_url)}", err=True)
            asyncio.run(
                run_live(
                    lambda should_stop: iterate_steps(simulations, random, should_stop, position=len(results)),
                    fleet,
                    settings.mcp_url,
                    rate,
                    lambda step: counts.update(step.events),
                    results,
                )
            )
        except StepFailedError as error:
            raise CliError(f"The demo stopped at a call that failed: {error}") from error
        except KeyboardInterrupt:
            pass
        finally:
            revoke_tokens(database, fleet)
    return LiveResult(dict(counts), time.monotonic() - started, fleet.project_names)


def _make_login_link(database: Database, fleet: ProvisionedFleet, url: str) -> str:
    with database.transaction() as conn:
        owner = owners.get(conn, fleet.projects[0].owner)
        return login_link_url(url, login_links.create_login_link(conn, owner, actor="cli"))


def _enter_bus(stack: ExitStack, data: Path | None) -> tuple[Settings, bool]:
    """Return the settings of the bus that runs here, or of a temporary one, and whether it is temporary."""
    settings = _find_settings(data)
    is_temporary = settings is None
    if settings is None:
        click.echo("No bus is running here; starting a temporary bus ...", err=True)
        settings = stack.enter_context(temporary_bus())
    if not is_gateway_reachable(settings.mcp_url):
        raise CliError(
            f"No gateway responds at {settings.mcp_url}. Start it, or set MCP_URL to its address.",
            ExitCode.UNAVAILABLE,
        )
    return settings, is_temporary


def _find_settings(data: Path | None) -> Settings | None:
    try:
        return settings_for_cli(data)
    except CliError as error:
        if error.code is ExitCode.UNAVAILABLE:
            return None
        raise


def _run_with_progress(plan: Plan, fleet: ProvisionedFleet, url: str) -> None:
    label = f"{len(plan.agents)} agents at work"
    with click.progressbar(length=len(plan.steps), label=label, file=sys.stderr) as bar:
        try:
            asyncio.run(run_plan(plan, fleet, url, lambda: bar.update(1)))
        except StepFailedError as error:
            raise CliError(f"The demo stopped at a call that failed: {error}") from error
