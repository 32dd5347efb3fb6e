"""What keeps the service itself well: a sign of life, tidying up, and the nightly proof."""

from bus.operations import integrity_checks as proof
from bus.operations import retention
from bus.tenancy import projects
from workers.job_runner import Work, announce, job

_DAY = 24 * 3600.0


@job(every=30)
def heartbeat(work: Work) -> None:
    """Show that the scheduler, the queue and a worker work together, and say what jobs there are."""
    announce(work.db, work.settings)


@job(every=3600)
def prune(work: Work) -> None:
    """Delete what nobody asks for any more: old keys, runs, notices; never the ledger, never money."""
    for kind in retention.KINDS:
        with work.apart(kind):
            gone = retention.BATCH
            while gone >= retention.BATCH and not work.is_over():
                with work.db.write() as conn:
                    gone = retention.prune(conn, kind)
                work.counts[kind] += gone


@job(every=60)
def finish_purges(work: Work) -> None:
    """Go on with the deletion of projects that somebody ordered and that was cut short."""
    with work.db.call() as conn:
        found = retention.find_purges(conn)
    for project_id in found:
        with work.apart(f"project {project_id}"):
            finished = False
            while not finished and not work.is_over():
                with work.db.write() as conn:
                    finished = projects.purge_step(conn, project_id)
            work.counts["purged"] += finished


@job(every=1800, rest=_DAY - 3600, budget=_DAY)
def reconcile(work: Work) -> None:
    """Prove from the ledger that balances, bills, sequences and numbers hold; a difference is an alarm."""
    after = 0
    while True:
        with work.db.call() as conn:
            ids = proof.list_projects(conn, after)
        if not ids:
            break
        for after in ids:
            with work.apart(f"project {after}"), work.db.write() as conn:
                proof.begin(conn)
                _alarm(work, proof.check_project(conn, after))
            work.counts["projects"] += 1
    with work.db.write() as conn:
        proof.begin(conn)
        _alarm(work, proof.check_accounts(conn))


def _alarm(work: Work, found: list[proof.Difference]) -> None:
    work.counts["differences"] += len(found)
    work.alarms += [f"{one.check}, {one.subject}: {one.found}" for one in found]
