"""What the workers need to know beyond the settings that every process shares."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from bus.settings import SettingError, Settings


@dataclass(frozen=True)
class WorkerSettings:
    """How jobs run, what is billed, and how people are told.

    Attributes:
        bus: the settings of every process.
        threads: jobs that run at once in one worker.
        every: for a job's name the seconds between its runs, where that differs from its own schedule.
        metering: whether events are billed. Off, nothing is ever refused for want of credits.
        trial_credits: what an owner's account is opened with.
        grace_hours: how long an owner whose credits are used up goes on before it is suspended.
        smtp_url: the mail server as smtp://USER:PASSWORD@HOST:PORT (STARTTLS where offered) or smtps://…; None
            sends no mail.
        mail_from: the sender of e-mails.
        webhooks_to_private: whether webhooks may lead into private networks.
    """

    bus: Settings
    threads: int = 4
    every: Mapping[str, float] = field(default_factory=dict)
    metering: bool = False
    trial_credits: int = 1000
    grace_hours: int = 72
    smtp_url: str | None = None
    mail_from: str = "llm-bus@localhost"
    webhooks_to_private: bool = False

    @classmethod
    def from_env(cls, env: Mapping[str, str] | None = None, *, bus: Settings | None = None) -> "WorkerSettings":
        """Read the settings from `env` (default: the process environment).

        Args:
            bus: the settings that every process shares, where they were read already.

        Raises:
            SettingError: a value is missing or has the wrong form.
        """
        env = os.environ if env is None else env
        smtp_url = env.get("SMTP_URL", "").strip() or None
        if smtp_url is not None and (
            urlsplit(smtp_url).scheme not in ("smtp", "smtps") or not urlsplit(smtp_url).hostname
        ):
            raise SettingError("SMTP_URL must look like smtp://user:password@host:587 or smtps://host:465.")
        return cls(
            bus=bus or Settings.from_env(env),
            threads=_number(env, "WORKER_THREADS", 4, 1, 64),
            every=_every(env.get("JOB_EVERY", "")),
            metering=bool(_number(env, "METERING", 0, 0, 1)),
            trial_credits=_number(env, "TRIAL_CREDITS", 1000, 0, 10**12),
            grace_hours=_number(env, "GRACE_HOURS", 72, 0, 24 * 365),
            smtp_url=smtp_url,
            mail_from=env.get("MAIL_FROM", "").strip() or "llm-bus@localhost",
            webhooks_to_private=bool(_number(env, "WEBHOOKS_TO_PRIVATE", 0, 0, 1)),
        )


def _number(env: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = env.get(name, "").strip()
    try:
        value = int(text or default)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise SettingError(f"{name} must be a whole number from {least} to {most}; it is {text!r}.")
    return value


def _every(text: str) -> dict[str, float]:
    """`expire_leases=1,meter_credits=0.5`: seconds by name."""
    found = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, seconds = part.partition("=")
        try:
            found[name.strip()] = float(seconds)
        except ValueError:
            found[name.strip()] = 0.0
        if not 0.1 <= found[name.strip()] <= 604_800:
            raise SettingError(f"JOB_EVERY must look like expire_leases=10,meter_credits=60; {part!r} does not.")
    return found
