"""People outside are told."""

import logging

from bus.notifications import outbox
from workers import mail, webhooks
from workers.job_runner import Work, job
from workers.delivery import Sent

_log = logging.getLogger(__name__)


@job(every=10)
def send_notices(work: Work) -> None:
    """Send what is to be told by webhook and e-mail; what fails comes again, later each time."""
    while not work.is_over():
        # A few at a time: each may take as long as its receiver.
        with work.db.write() as conn:
            taken = outbox.take(conn, limit=5)
        if not taken:
            break
        for notice in taken:
            sent = _send(work, notice)
            with work.db.write() as conn:
                outbox.settle(conn, notice, delivered=sent.delivered, said=sent.said, final=sent.final)
            work.counts["delivered" if sent.delivered else "not_delivered"] += 1


def _send(work: Work, notice: outbox.Notice) -> Sent:
    try:
        if notice.channel == "webhook":
            return webhooks.send(notice, to_private=work.settings.webhooks_to_private)
        return mail.send(notice, work.settings)
    except Exception as error:  # noqa: BLE001 - one that cannot be told must not cost the others their turn
        _log.exception("notice %s could not be sent", notice.id)
        return Sent(False, f"it could not be sent: {type(error).__name__}")
