"""What keeps the service itself well: a sign of life, tidying up, and the nightly proof."""

from bus.operations import integrity_checks as proof
from bus.operations import retention
from bus.tenancy import projects
from workers.job_runner import JobRun, job, register_jobs

_DAY_SECONDS = 24 * 3600.0


@job(interval=30)
def heartbeat(run: JobRun) -> None:
    """Show that the scheduler, the queue and a worker work together, and say what jobs there are."""
    register_jobs(run.db, run.settings)


@job(interval=3600)
def prune(run: JobRun) -> None:
    """Delete what nobody asks for any more: old keys, runs, notices; never the ledger, never money."""
    for kind in retention.PRUNE_KINDS:
        with run.isolate_errors(kind):
            gone = retention.BATCH_SIZE
            while gone >= retention.BATCH_SIZE and not run.should_stop():
                with run.db.transaction() as conn:
                    gone = retention.prune_batch(conn, kind)
                run.counts[kind] += gone


@job(interval=60)
def finish_purges(run: JobRun) -> None:
    """Go on with the deletion of projects that somebody ordered and that was cut short."""
    with run.db.connection() as conn:
        found = retention.list_unfinished_purges(conn)
    for project_id in found:
        with run.isolate_errors(f"project {project_id}"):
            finished = False
            while not finished and not run.should_stop():
                with run.db.transaction() as conn:
                    finished = projects.purge_step(conn, project_id)
            run.counts["purged"] += finished


@job(interval=1800, min_interval=_DAY_SECONDS - 3600, time_budget=_DAY_SECONDS)
def reconcile(run: JobRun) -> None:
    """Prove from the ledger that balances, bills, sequences and numbers hold; a difference is an alarm."""
    after = 0
    while True:
        with run.db.connection() as conn:
            ids = proof.list_projects(conn, after)
        if not ids:
            break
        for after in ids:
            with run.isolate_errors(f"project {after}"), run.db.transaction() as conn:
                proof.begin_snapshot(conn)
                _record_differences(run, proof.check_project(conn, after))
            run.counts["projects"] += 1
    with run.db.transaction() as conn:
        proof.begin_snapshot(conn)
        _record_differences(run, proof.check_accounts(conn))


def _record_differences(run: JobRun, differences: list[proof.Discrepancy]) -> None:
    run.counts["differences"] += len(differences)
    run.alarms += [f"{one.check}, {one.subject}: {one.detail}" for one in differences]
