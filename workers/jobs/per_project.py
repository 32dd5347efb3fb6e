"""Jobs that call one engine function for each project: expiry, escalation and rollups."""

from bus.analytics import rollups
from bus.coordination import escalation, expiry, sessions, text_search
from workers.job_runner import JobRun, job


@job(interval=10)
def expire_leases(run: JobRun) -> None:
    """End leases whose time is over, with one lease_expire each; waiting calls are notified."""
    run.for_each_project(
        expiry.list_projects_with_expired_leases, expiry.expire_leases, "ended", batch_size=expiry.BATCH_SIZE
    )


@job(interval=10)
def end_sessions(run: JobRun) -> None:
    """End sessions that are silent or whose token has ended; their leases are released, their tasks returned."""
    run.for_each_project(
        sessions.list_projects_with_stale_sessions,
        sessions.end_stale_sessions,
        "ended",
        batch_size=sessions.BATCH_SIZE,
    )


@job(interval=10)
def escalate_overdue_posts(run: JobRun) -> None:
    """Take the next step for handoffs past their deadline: the ledger, then the project-admins, then notices."""
    run.for_each_project(
        escalation.list_projects_with_overdue_posts,
        escalation.escalate_overdue_posts,
        "steps",
        batch_size=escalation.BATCH_SIZE,
    )


@job(interval=30)
def decay_presence(run: JobRun) -> None:
    """Record participants absent for longer than the project's window, with one presence_lapse each."""
    run.for_each_project(
        expiry.list_projects_with_absent_participants,
        expiry.record_absent_participants,
        "gone",
        batch_size=expiry.BATCH_SIZE,
    )


@job(interval=30)
def requeue_stalled_tasks(run: JobRun) -> None:
    """Reopen tasks whose assignee has been gone for the project's stall window, where the project has one."""
    run.for_each_project(
        expiry.list_projects_with_stalled_tasks, expiry.requeue_stalled_tasks, "requeued", batch_size=expiry.BATCH_SIZE
    )


@job(interval=30)
def keep_tallies(run: JobRun) -> None:
    """Add new events to the hourly and daily rollups, so that project charts read no ledger."""
    run.for_each_project(rollups.list_projects_behind, rollups.roll_up_batch, "events", batch_size=rollups.BATCH_SIZE)


@job(interval=10)
def index_texts(run: JobRun) -> None:
    """Add the words of new posts and tasks to the index that searches read."""
    run.for_each_project(
        text_search.list_projects_behind, text_search.index_batch, "texts", batch_size=text_search.BATCH_SIZE
    )


@job(interval=60)
def expire_invites(run: JobRun) -> None:
    """Record in the audit log which invites ended unused."""
    while not run.should_stop():
        with run.db.transaction() as conn:
            expired = expiry.expire_invites(conn)
        run.counts["expired"] += expired
        if expired < expiry.BATCH_SIZE:
            break
