"""Settings of the workers, in addition to those that every process shares."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from bus.config.settings import SettingError, Settings, read_bool, read_int


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of jobs, billing, e-mail and webhooks.

    Attributes:
        bus: the settings of every process.
        threads: jobs that run at once in one worker.
        job_intervals: seconds between runs, by job, where they differ from the job's own schedule.
        metering: whether events are billed; None keeps the present state. While it is off, as it is initially,
            no call is refused for lack of credits.
        trial_credits: the opening balance of an owner's account.
        grace_hours: how long after its credits are used up an owner is suspended.
        smtp_url: the mail server as smtp://USER:PASSWORD@HOST:PORT (STARTTLS where offered) or smtps://…; None
            sends no mail.
        mail_from: the sender of e-mails.
        allow_private_webhooks: whether webhooks may connect to private networks.
        metrics_port: the port of a worker's /metrics, which requires the token; 0 serves none.
    """

    bus: Settings
    threads: int = 4
    job_intervals: Mapping[str, float] = field(default_factory=dict)
    metering: bool | None = None
    trial_credits: int = 1000
    grace_hours: int = 72
    smtp_url: str | None = None
    mail_from: str = "llm-bus@localhost"
    allow_private_webhooks: bool = False
    metrics_port: int = 0

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, *, bus: Settings | None = None) -> "WorkerSettings":
        """Read the settings from `env` (default: the process environment).

        Args:
            bus: the settings that every process shares, if they have been read already.

        Raises:
            SettingError: a value is missing or has the wrong form.
        """
        env = os.environ if env is None else env
        smtp_url = env.get("SMTP_URL", "").strip() or None
        if smtp_url is not None and not _is_smtp_url(smtp_url):
            raise SettingError(
                "SMTP_URL must look like smtp://user:password@host:587 or smtps://host:465; "
                "write / ? # @ in the password as %2F %3F %23 %40."
            )
        shared = bus or Settings.from_env(env)
        metrics_port = read_int(env, "METRICS_PORT", 0, 0, 65535)
        if metrics_port and shared.metrics_token is None:
            raise SettingError("METRICS_PORT is set and METRICS_TOKEN is not; set both, or neither.")
        return cls(
            bus=shared,
            metrics_port=metrics_port,
            threads=read_int(env, "WORKER_THREADS", 4, 1, 64),
            job_intervals=_parse_job_intervals(env.get("JOB_EVERY", "")),
            metering=read_bool(env, "METERING") if env.get("METERING", "").strip() else None,
            trial_credits=read_int(env, "TRIAL_CREDITS", 1000, 0, 10**12),
            grace_hours=read_int(env, "GRACE_HOURS", 72, 0, 24 * 365),
            smtp_url=smtp_url,
            mail_from=env.get("MAIL_FROM", "").strip() or "llm-bus@localhost",
            allow_private_webhooks=read_bool(env, "WEBHOOKS_TO_PRIVATE"),
        )


def _is_smtp_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # An unescaped / or # in the password moves part of it into the port, and the error would quote it.
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("smtp", "smtps") and bool(parts.hostname) and parts.path in ("", "/") and not parts.fragment


def _parse_job_intervals(text: str) -> dict[str, float]:
    """Parse `expire_leases=1,meter_credits=0.5` into seconds by job."""
    intervals = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, seconds = part.partition("=")
        try:
            intervals[name.strip()] = float(seconds)
        except ValueError:
            intervals[name.strip()] = 0.0
        if not 0.1 <= intervals[name.strip()] <= 604_800:
            raise SettingError(f"JOB_EVERY must look like expire_leases=10,meter_credits=60; {part!r} does not.")
    return intervals
