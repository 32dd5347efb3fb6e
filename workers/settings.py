"""Settings of the workers, in addition to those that every process shares."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Annotated
from urllib.parse import urlsplit

from bus.config.settings import Settings
from bus.config.variables import (
    Environment,
    EnvironmentSettings,
    Kind,
    Variable,
    quote,
    reading,
    switch,
    text,
    whole_number,
)

PROCESSES = ("worker",)
_MIN_INTERVAL_SECONDS, _MAX_INTERVAL_SECONDS = 0.1, 604_800


def _parse_smtp_url(url: str) -> str:
    if not _is_smtp_url(url):
        # The value is not shown: with an unescaped character in the password it is unclear where the password ends.
        raise ValueError(
            "must look like smtp://user:password@host:587 or smtps://host:465; "
            "write / ? # @ in the password as %2F %3F %23 %40."
        )
    return url


def _is_smtp_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        # An unescaped / or # in the password moves part of it into the port, and the error would quote it.
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme in ("smtp", "smtps") and bool(parts.hostname) and parts.path in ("", "/") and not parts.fragment


def _parse_job_intervals(text: str) -> Mapping[str, float]:
    """Parse `expire_leases=1,meter_credits=0.5` into seconds by job."""
    intervals = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, seconds = part.partition("=")
        try:
            intervals[name.strip()] = float(seconds)
        except ValueError:
            intervals[name.strip()] = 0.0
        if not _MIN_INTERVAL_SECONDS <= intervals[name.strip()] <= _MAX_INTERVAL_SECONDS:
            raise ValueError(
                f"must look like expire_leases=10,meter_credits=60, with {_MIN_INTERVAL_SECONDS} to"
                f" {_MAX_INTERVAL_SECONDS} seconds; {quote(part)} does not."
            )
    return MappingProxyType(intervals)


@dataclass(frozen=True, repr=False)
class WorkerSettings(EnvironmentSettings):
    """Settings of jobs, billing, e-mail and webhooks.

    docs/reference/settings.md has the meaning of each; it is generated from these declarations. `bus` holds those that
    every process shares. `metering` is None where the present state is kept.
    """

    bus: Settings
    threads: Annotated[
        int,
        Variable("WORKER_THREADS", whole_number(1, 64), "jobs that run at once in one worker, and so its connections"),
    ] = 4
    job_intervals: Annotated[
        Mapping[str, float],
        Variable(
            "JOB_EVERY",
            Kind(
                "list",
                f"`job=seconds`, separated by commas; {_MIN_INTERVAL_SECONDS} to {_MAX_INTERVAL_SECONDS} seconds",
                _parse_job_intervals,
                lambda intervals: ",".join(f"{name}={seconds:g}" for name, seconds in intervals.items()),
            ),
            "seconds between runs, by job",
            default_text="each job's own",
            processes=("worker", "beat"),
        ),
    ] = field(default_factory=dict)
    metering: Annotated[
        bool | None,
        Variable(
            "METERING",
            switch(),
            "whether events are billed from now on",
            default_text="as it is; off at first",
        ),
    ] = None
    trial_credits: Annotated[
        int, Variable("TRIAL_CREDITS", whole_number(0, 10**12), "opening balance of a new account")
    ] = 1000
    grace_hours: Annotated[
        int,
        Variable(
            "GRACE_HOURS", whole_number(0, 24 * 365), "how long an owner may continue after its credits are used up"
        ),
    ] = 72
    smtp_url: Annotated[
        str | None,
        Variable(
            "SMTP_URL",
            Kind("URL", "smtp:// (STARTTLS where offered) or smtps://", _parse_smtp_url),
            "mail server, as `smtp://user:password@host:587`",
            default_text="no mail is sent",
        ),
    ] = None
    mail_from: Annotated[str, Variable("MAIL_FROM", text("an e-mail address"), "sender of e-mails")] = (
        "llm-bus@localhost"
    )
    allow_private_webhooks: Annotated[
        bool, Variable("WEBHOOKS_TO_PRIVATE", switch(), "whether webhooks may connect to private networks")
    ] = False
    metrics_port: Annotated[
        int,
        Variable(
            "METRICS_PORT",
            whole_number(0, 65535),
            "port on which a worker answers `/metrics`; requires `METRICS_TOKEN`; 0: none",
        ),
    ] = 0

    @classmethod
    def from_env(
        cls, env: Mapping[str, str] | Environment | None = None, *, bus: Settings | None = None
    ) -> "WorkerSettings":
        """Read the settings from `env` (default: the process environment).

        Args:
            bus: the settings that every process shares, if they have been read already.

        Raises:
            SettingError: values are missing or have the wrong form.
        """
        with reading(env) as reader:
            shared = bus or Settings.from_env(reader)
            values = reader.read_fields(cls)
            # A token of the wrong form is a problem of its own.
            if values["metrics_port"] and shared.metrics_token is None and not reader.is_given("METRICS_TOKEN"):
                reader.add_problems(["METRICS_PORT is set and METRICS_TOKEN is not; set both, or neither."])
            return cls(bus=shared, **values)
