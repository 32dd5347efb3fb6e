"""Deliver pending webhooks and e-mails."""

import logging

from bus.notifications import outbox
from workers import mail, webhooks
from workers.delivery import DeliveryResult
from workers.job_runner import JobRun, job

_log = logging.getLogger(__name__)


@job(interval=10)
def send_notices(run: JobRun) -> None:
    """Deliver pending webhooks and e-mails; failures are retried with growing delays."""
    while not run.should_stop():
        # A few at a time: each may take as long as its receiver.
        with run.db.transaction() as conn:
            notices = outbox.take_due(conn, limit=5)
        if not notices:
            break
        for notice in notices:
            result = _deliver(run, notice)
            with run.db.transaction() as conn:
                outbox.record_attempt(
                    conn, notice, delivered=result.delivered, result=result.detail, permanent=result.permanent
                )
            run.counts["delivered" if result.delivered else "not_delivered"] += 1


def _deliver(run: JobRun, notice: outbox.OutboxMessage) -> DeliveryResult:
    try:
        if notice.channel == "webhook":
            return webhooks.send(notice, allow_private=run.settings.allow_private_webhooks)
        return mail.send(notice, run.settings)
    except Exception as error:  # noqa: BLE001 - one bad notice must not block the others
        _log.exception("notice %s could not be sent", notice.id)
        return DeliveryResult(False, f"it could not be sent: {type(error).__name__}")
