"""Maintenance of the service: heartbeat, pruning, unfinished purges and the daily integrity check."""

from bus.operations import integrity_checks, project_purge, retention
from workers.job_runner import JobRun, job, register_jobs
from workers.jobs import all_jobs

_DAY_SECONDS = 24 * 3600.0


@job(interval=30)
def heartbeat(run: JobRun) -> None:
    """Show that scheduler, queue and worker work together, and record which jobs there are."""
    register_jobs(run.db, run.settings, all_jobs().values())


@job(interval=3600)
def prune(run: JobRun) -> None:
    """Delete expired keys, sessions, job runs and notices; never the ledger, never credit entries."""
    for kind in retention.PRUNE_KINDS:
        with run.isolate_errors(kind):
            deleted = retention.BATCH_SIZE
            while deleted >= retention.BATCH_SIZE and not run.should_stop():
                with run.db.transaction() as conn:
                    deleted = retention.prune_batch(conn, kind)
                run.counts[kind] += deleted


@job(interval=60)
def finish_purges(run: JobRun) -> None:
    """Continue purges of projects that were interrupted."""
    with run.db.connection() as conn:
        project_ids = retention.list_unfinished_purges(conn)
    for project_id in project_ids:
        with run.isolate_errors(f"project {project_id}"):
            finished = False
            while not finished and not run.should_stop():
                with run.db.transaction() as conn:
                    finished = project_purge.purge_step(conn, project_id)
            run.counts["purged"] += finished


@job(interval=1800, min_interval=_DAY_SECONDS - 3600, time_budget=_DAY_SECONDS)
def reconcile(run: JobRun) -> None:
    """Check balances, bills, sequences and event numbers against the ledger; a difference is an alarm."""
    after = 0
    while True:
        with run.db.connection() as conn:
            project_ids = integrity_checks.list_projects(conn, after)
        if not project_ids:
            break
        for after in project_ids:
            with run.isolate_errors(f"project {after}"), run.db.transaction() as conn:
                integrity_checks.begin_snapshot(conn)
                _record_differences(run, integrity_checks.check_project(conn, after))
            run.counts["projects"] += 1
    with run.db.transaction() as conn:
        integrity_checks.begin_snapshot(conn)
        _record_differences(run, integrity_checks.check_accounts(conn))


def _record_differences(run: JobRun, differences: list[integrity_checks.Discrepancy]) -> None:
    run.counts["differences"] += len(differences)
    run.alarms += [f"{difference.check}, {difference.subject}: {difference.detail}" for difference in differences]
