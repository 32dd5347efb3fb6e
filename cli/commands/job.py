"""`llm-bus job`: list and run the time-driven jobs, by hand or from a scheduler of your own."""

from pathlib import Path

import click

from cli.options import data_option, emit, format_table, json_option


@click.group("job", short_help="Time-driven jobs: list, run, history.")
def command() -> None:
    """Time-driven jobs: they end leases, escalate handoffs, meter credits.

    `llm-bus up` and the Procfile run all of them. Without Redis, let cron run each job.
    """


@command.command("list")
@data_option
@json_option
def list_jobs(data: Path | None, as_json: bool) -> None:
    """List every job, its interval and its last run."""
    from bus.operations import jobs as job_records
    from cli.database import transaction
    from workers.jobs import all_jobs

    with transaction(data) as conn:
        latest = {run.name: run for run in job_records.list_latest_runs(conn)}
    jobs = [
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
            job["name"],
            f"{job['every_seconds']:.0f} s",
            "never" if (run := latest.get(str(job["name"]))) is None else f"{run.outcome}, {run.age_seconds:.0f} s ago",
            job["about"],
        )
        for job in jobs
    ]
    emit({"jobs": jobs}, format_table(("NAME", "EVERY", "LAST RUN", "PURPOSE"), rows), as_json=as_json)


@command.command("run")
@click.argument("name", required=False)
@click.option("--due", is_flag=True, help="Run every job whose interval is over, for a scheduler such as cron.")
@data_option
@json_option
def run_job(name: str | None, due: bool, data: Path | None, as_json: bool) -> None:
    """Run the job NAME once in this process and show the result, or with --due every job that is due.

    Exit code 1: one failed or raised an alarm.
    """
    import dataclasses

    from cli.exit_codes import CliError, ExitCode
    from cli.job_runs import describe_result, run_due_jobs, run_named_job

    if (name is None) is not due:
        raise CliError("Give the NAME of a job, or --due; `llm-bus job list` lists all jobs.", ExitCode.USAGE)
    if name is not None:
        result = run_named_job(name, data)
        emit(dataclasses.asdict(result), describe_result(name, result), as_json=as_json)
        results = [result]
    else:
        results_by_name = run_due_jobs(data)
        results = list(results_by_name.values())
        emit(
            {"runs": {job: dataclasses.asdict(result) for job, result in results_by_name.items()}},
            "\n".join(describe_result(job, result) for job, result in results_by_name.items()) or "No job is due.",
            as_json=as_json,
        )
    if any(result.outcome != "ok" for result in results):
        raise SystemExit(ExitCode.FAILED)


@command.command("history")
@click.argument("name", required=False)
@click.option("--before", type=click.IntRange(1), help="List older runs: those with a smaller id.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="The number of runs.")
@data_option
@json_option
def list_runs(name: str | None, before: int | None, limit: int, data: Path | None, as_json: bool) -> None:
    """List runs of the job NAME, or of all jobs, newest first."""
    import dataclasses

    from bus.operations import jobs as job_records
    from cli.database import transaction

    with transaction(data) as conn:
        runs = job_records.list_runs(conn, name=name, before=before, limit=limit)
    rows = [
        (
            run.id,
            run.name,
            f"{run.started_at:%Y-%m-%d %H:%M:%S}",
            run.outcome,
            ", ".join(f"{key} {count}" for key, count in sorted(run.counts.items())),
            (run.error or "").partition("\n")[0][:80],
        )
        for run in runs
    ]
    emit(
        {"runs": [dataclasses.asdict(run) for run in runs]},
        format_table(("ID", "NAME", "STARTED", "OUTCOME", "COUNTS", "ERROR"), rows),
        as_json=as_json,
    )
