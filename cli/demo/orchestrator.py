"""A demo from beginning to end: plan, stage, play, report."""

import asyncio
import sys
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import click

from bus.analytics import reports
from bus.analytics.reports import ProjectReport
from bus.config.settings import Settings
from bus.db import Database
from cli.demo.check import differences
from cli.demo.model import Plan
from cli.demo.plan import make_plan
from cli.demo.runner import StepFailedError, gateway_answers, play
from cli.demo.setup import Stage, clear_up, set_up
from cli.demo.temporary import temporary_bus
from cli.exit_codes import CliError, Exit
from cli.runtime import settings_for_cli


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a demo did. `differences` is empty if the ledgers hold what was planned."""

    calls: int
    seconds: float
    total: ProjectReport
    projects: list[ProjectReport]
    differences: list[str]
    temporary: bool


def run(agents: int, projects: int, events: int, seed: int, *, owner: str | None, data: Path | None) -> Outcome:
    """Let a simulated fleet work through the bus that runs here, or through a temporary one.

    Raises:
        CliError: the gateway does not answer, or a call failed.
        BusError: `not_found` for the owner.
    """
    plan = make_plan(agents, projects, events, seed)
    with ExitStack() as stack:
        settings = _running(data)
        temporary = settings is None
        if settings is None:
            click.echo("Nothing is running here; starting a temporary bus ...", err=True)
            settings = stack.enter_context(temporary_bus())
        if not gateway_answers(settings.mcp_url):
            raise CliError(
                f"No gateway answers at {settings.mcp_url}. Start it, or set MCP_URL to its address.",
                Exit.UNAVAILABLE,
            )
        database = stack.enter_context(closing(Database(settings.database_url, size=1, name="llm-bus demo")))
        stage = Stage()
        try:
            set_up(database, plan, stage, owner)
            started = time.monotonic()
            _play(plan, stage, settings.mcp_url)
            seconds = time.monotonic() - started
        finally:
            clear_up(database, stage)
        with database.call() as conn:
            total = reports.combined(conn, [project.id for project in stage.projects])
            each = [reports.project_report(conn, project.id) for project in stage.projects]
    found = [line for pair in zip(plan.expected, each, strict=True) for line in differences(*pair)]
    return Outcome(len(plan.steps), seconds, total, each, found, temporary)


def _running(data: Path | None) -> Settings | None:
    try:
        return settings_for_cli(data)
    except CliError as error:
        if error.code is Exit.UNAVAILABLE:
            return None
        raise


def _play(plan: Plan, stage: Stage, url: str) -> None:
    label = f"{len(plan.agents)} agents at work"
    with click.progressbar(length=len(plan.steps), label=label, file=sys.stderr) as bar:
        try:
            asyncio.run(play(plan, stage, url, lambda: bar.update(1)))
        except StepFailedError as error:
            raise CliError(f"The demo stopped at a call that failed: {error}") from error
