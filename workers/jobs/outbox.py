"""People outside are told."""

import logging

from bus.notifications import outbox
from workers import mail, webhooks
from workers.delivery import DeliveryResult
from workers.job_runner import JobRun, job

_log = logging.getLogger(__name__)


@job(interval=10)
def send_notices(run: JobRun) -> None:
    """Send what is to be told by webhook and e-mail; what fails comes again, later each time."""
    while not run.should_stop():
        # A few at a time: each may take as long as its receiver.
        with run.db.transaction() as conn:
            taken = outbox.take_due(conn, limit=5)
        if not taken:
            break
        for notice in taken:
            sent = _deliver(run, notice)
            with run.db.transaction() as conn:
                outbox.record_attempt(
                    conn, notice, delivered=sent.delivered, result=sent.detail, permanent=sent.permanent
                )
            run.counts["delivered" if sent.delivered else "not_delivered"] += 1


def _deliver(run: JobRun, notice: outbox.Notice) -> DeliveryResult:
    try:
        if notice.channel == "webhook":
            return webhooks.send(notice, allow_private=run.settings.allow_private_webhooks)
        return mail.send(notice, run.settings)
    except Exception as error:  # noqa: BLE001 - one that cannot be told must not cost the others their turn
        _log.exception("notice %s could not be sent", notice.id)
        return DeliveryResult(False, f"it could not be sent: {type(error).__name__}")
