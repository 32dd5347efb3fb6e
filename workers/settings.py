"""Settings of the workers, in addition to those that every process shares."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, Field

from bus.config.redaction import quote
from bus.config.settings import Settings
from bus.config.variables import Environment, EnvironmentSettings, reading

PROCESSES = ("worker",)
_MIN_INTERVAL_SECONDS, _MAX_INTERVAL_SECONDS = 0.1, 604_800


def _require_smtp_url(url: str) -> str:
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


def _require_time_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError):
        if name != "UTC":
            raise ValueError(f"must be a name such as Europe/Vienna; {quote(name)} is not known here.") from None
    return name


def _parse_job_intervals(text: str | Mapping[str, float]) -> Mapping[str, float]:
    """Parse `expire_leases=1,meter_credits=0.5` into seconds by job; seconds by job are returned as they are."""
    if not isinstance(text, str):
        return text
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
    return intervals


class WorkerSettings(EnvironmentSettings):
    """Settings of jobs, billing, e-mail and webhooks.

    docs/reference/settings.md has the meaning of each; it is generated from these declarations. `bus` holds those that
    every process shares. `metering` is None where the present state is kept.
    """

    bus: Settings
    threads: Annotated[
        int,
        Field(
            validation_alias="WORKER_THREADS",
            ge=1,
            le=64,
            description="jobs that run at once in one worker, and so its connections",
        ),
    ] = 4
    job_intervals: Annotated[
        Mapping[str, float], BeforeValidator(_parse_job_intervals), AfterValidator(MappingProxyType)
    ] = Field(
        validation_alias="JOB_EVERY",
        default_factory=dict,
        title=f"list: `job=seconds`, separated by commas; {_MIN_INTERVAL_SECONDS} to {_MAX_INTERVAL_SECONDS} seconds",
        description="seconds between runs, by job",
        json_schema_extra={"default_text": "each job's own", "processes": ["worker", "beat"]},
    )
    metering: Annotated[
        bool | None,
        Field(
            validation_alias="METERING",
            description="whether events are billed from now on",
            json_schema_extra={"default_text": "as it is; off at first"},
        ),
    ] = None
    trial_credits: Annotated[
        int, Field(validation_alias="TRIAL_CREDITS", ge=0, le=10**12, description="opening balance of a new account")
    ] = 1000
    grace_hours: Annotated[
        int,
        Field(
            validation_alias="GRACE_HOURS",
            ge=0,
            le=24 * 365,
            description="how long an owner may continue after its credits are used up",
        ),
    ] = 72
    smtp_url: Annotated[
        Annotated[str, AfterValidator(_require_smtp_url)] | None,
        Field(
            validation_alias="SMTP_URL",
            title="URL: smtp:// (STARTTLS where offered; required with a password) or smtps://",
            description="mail server, as `smtp://user:password@host:587`",
            json_schema_extra={"default_text": "no mail is sent"},
        ),
    ] = None
    mail_from: Annotated[
        str, Field(validation_alias="MAIL_FROM", title="text: an e-mail address", description="sender of e-mails")
    ] = "llm-bus@localhost"
    mail_time_zone: Annotated[
        str,
        AfterValidator(_require_time_zone),
        Field(
            validation_alias="MAIL_TIME_ZONE",
            title="text: a name of the IANA time zone database, such as Europe/Vienna",
            description="time zone of the times in e-mails; UTC is shown beside it",
        ),
    ] = "UTC"
    allow_private_webhooks: Annotated[
        bool,
        Field(validation_alias="WEBHOOKS_TO_PRIVATE", description="whether webhooks may connect to private networks"),
    ] = False
    metrics_port: Annotated[
        int,
        Field(
            validation_alias="METRICS_PORT",
            ge=0,
            le=65535,
            description="port on which a worker answers `/metrics`; requires `METRICS_TOKEN`; 0: none",
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
            settings = reader.read(cls, bus=shared)
            # A token of the wrong form is a problem of its own.
            if settings.metrics_port and shared.metrics_token is None and not reader.is_given("METRICS_TOKEN"):
                reader.add_problems(["METRICS_PORT is set and METRICS_TOKEN is not; set both, or neither."])
            return settings
