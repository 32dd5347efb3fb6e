"""`llm-bus job`: what happens with time, by hand or from a scheduler of your own."""

from pathlib import Path

import click

from cli.options import data_option, emit, format_table, json_option


@click.group("job", short_help="Jobs that happen with time: list, run, history.")
def command() -> None:
    """What happens with time: leases end, handoffs are escalated, credits are metered.

    `llm-bus up` and the Procfile run all of it by themselves. Without Redis, let cron run each job.
    """


@command.command("list")
@data_option
@json_option
def list_jobs(data: Path | None, as_json: bool) -> None:
    """Every job, how often it runs, and how its last run went."""
    from bus.operations import jobs as runs
    from cli.database import transaction
    from workers.job_runner import all_jobs

    with transaction(data) as conn:
        latest = {run.name: run for run in runs.list_latest_runs(conn)}
    found = [
        {
            "name": job.name,
            "every_seconds": job.min_interval or job.interval,
            "about": job.summary,
            "last": None
            if (run := latest.get(job.name)) is None
            else {"started_at": run.started_at, "outcome": run.outcome, "counts": run.counts, "error": run.error},
        }
        for job in all_jobs().values()
    ]
    rows = [
        (
            one["name"],
            f"{one['every_seconds']:.0f} s",
            "never" if (run := latest.get(str(one["name"]))) is None else f"{run.outcome}, {run.age_seconds:.0f} s ago",
            one["about"],
        )
        for one in found
    ]
    emit({"jobs": found}, format_table(("NAME", "EVERY", "LAST RUN", "WHAT IT DOES"), rows), as_json=as_json)


@command.command("run")
@click.argument("name")
@data_option
@json_option
def run_job(name: str, data: Path | None, as_json: bool) -> None:
    """Run the job NAME once, here, and say what it did.

    Exits with 1 if it failed, or found what must not be.
    """
    import dataclasses

    from bus.coordination.change_notifications import NotificationPublisher
    from bus.db import Database
    from cli.exit_codes import CliError, ExitCode
    from cli.runtime import settings_for_cli
    from workers.job_runner import all_jobs, execute_job, register_jobs
    from workers.settings import WorkerSettings

    job = all_jobs().get(name)
    if job is None:
        raise CliError(f"There is no job {name!r}; `llm-bus job list` names them.", ExitCode.USAGE)
    settings = dataclasses.replace(WorkerSettings.from_env(bus=settings_for_cli(data)), threads=1)
    hints = NotificationPublisher(settings.bus.redis_url)
    database = Database(settings.bus.database_url, pool_size=2, application_name="llm-bus job", on_commit=hints.publish)
    try:
        register_jobs(database, settings, update_schedule=False)
        done = execute_job(job, database, settings, ignore_min_interval=True)
    finally:
        database.close()
        hints.close()
    counts = ", ".join(f"{what} {count}" for what, count in sorted(done.counts.items()) if count) or "nothing to do"
    text = f"{name}: {done.outcome} in {done.seconds:.1f} s; {counts}"
    if done.error:
        text = f"{text}\n{done.error}"
    emit(dataclasses.asdict(done), text, as_json=as_json)
    if done.outcome != "ok":
        raise SystemExit(ExitCode.FAILED)


@command.command("history")
@click.argument("name", required=False)
@click.option("--before", type=click.IntRange(1), help="List older runs: those with a smaller id.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="The most to list.")
@data_option
@json_option
def list_runs(name: str | None, before: int | None, limit: int, data: Path | None, as_json: bool) -> None:
    """Runs of the job NAME, or of all, newest first."""
    import dataclasses

    from bus.operations import jobs as runs
    from cli.database import transaction

    with transaction(data) as conn:
        found = runs.list_runs(conn, name=name, before=before, limit=limit)
    rows = [
        (
            run.id,
            run.name,
            f"{run.started_at:%Y-%m-%d %H:%M:%S}",
            run.outcome,
            ", ".join(f"{what} {count}" for what, count in sorted(run.counts.items())),
            (run.error or "").partition("\n")[0][:80],
        )
        for run in found
    ]
    emit(
        {"runs": [dataclasses.asdict(run) for run in found]},
        format_table(("ID", "NAME", "STARTED", "OUTCOME", "DID", "ERROR"), rows),
        as_json=as_json,
    )
