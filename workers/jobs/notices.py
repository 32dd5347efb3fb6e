"""People outside are told."""

from bus import notices
from workers import mail, webhooks
from workers.job import Work, job


@job(every=10)
def send_notices(work: Work) -> None:
    """Send what is to be told by webhook and e-mail; what fails comes again, later each time."""
    while not work.is_over:
        # A few at a time: each may take as long as its receiver.
        with work.db.write() as conn:
            taken = notices.take(conn, limit=5)
        if not taken:
            break
        for notice in taken:
            if notice.channel == "webhook":
                sent = webhooks.send(notice, to_private=work.settings.webhooks_to_private)
            else:
                sent = mail.send(notice, work.settings)
            with work.db.write() as conn:
                notices.settle(conn, notice, delivered=sent.delivered, said=sent.said, final=sent.final)
            work.counts["delivered" if sent.delivered else "not_delivered"] += 1
