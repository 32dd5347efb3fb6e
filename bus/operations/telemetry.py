"""Optional telemetry: errors to Sentry and traces to OpenTelemetry; no user content leaves the process.

Both need optional packages (`llm-bus[observe]`). Only constant texts of this code base are sent: names of tools, routes
and jobs, outcomes, exception types, source lines and the id of the request. Exception messages and values in log
messages are removed, since they may contain a body, a token or an address.
"""

import atexit
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, SecretStr

from bus import __version__
from bus.config.errors import SettingError
from bus.config.variables import Environment, EnvironmentSettings, reading
from bus.operations.logs import log_context

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer
    from sentry_sdk.types import Event, Hint

_INSTALL_HINT = "Install llm-bus[observe], or leave the variable out."
_FLUSH_TIMEOUT_SECONDS = 2.0
# Fields of a Sentry event that are sent; all others are removed.
_ALLOWED_EVENT_FIELDS = frozenset(
    {"event_id", "timestamp", "level", "logger", "platform", "release", "environment", "exception", "logentry", "sdk"}
)
_ALLOWED_FRAME_FIELDS = frozenset(
    {"filename", "abs_path", "function", "module", "lineno", "pre_context", "context_line", "post_context", "in_app"}
)

_tracer: "Tracer | None" = None


class TelemetrySettings(EnvironmentSettings):
    """Where errors and traces are sent."""

    sentry_dsn: Annotated[
        SecretStr | None,
        Field(validation_alias="SENTRY_DSN", description="where errors are sent, as `https://KEY@HOST/PROJECT`"),
    ] = None
    otlp_endpoint: Annotated[
        str | None,
        Field(
            validation_alias="OTEL_EXPORTER_OTLP_ENDPOINT",
            title="text: a web address",
            description="where traces are sent; the other variables of the OpenTelemetry standard apply too",
        ),
    ] = None


def start_telemetry(process_kind: str, env: Mapping[str, str] | Environment) -> None:
    """Start the exporters that are configured by SENTRY_DSN and OTEL_EXPORTER_OTLP_ENDPOINT; call it once at start-up.

    Args:
        process_kind: one of PROCESS_KINDS (bus/rules/enums.py).

    Raises:
        SettingError: the package of a setting is not installed, or the setting is malformed.
    """
    with reading(env) as reader:
        settings = reader.read(TelemetrySettings)
        try:
            if settings.sentry_dsn is not None:
                _start_sentry(process_kind, settings.sentry_dsn.get_secret_value())
        except SettingError as error:
            reader.add_problems(error.problems)
        if settings.otlp_endpoint is not None:
            _start_tracing(process_kind)


def is_tracing() -> bool:
    """Return whether spans are sent; lets hot code skip building the arguments of `record_span`."""
    return _tracer is not None


def record_span(name: str, seconds: float, **attributes: str | int) -> None:
    """Record an operation that has just ended as a span; does nothing unless tracing is on.

    Args:
        name: from a small fixed set.
        attributes: constant texts and numbers, never user content.
    """
    if _tracer is None:
        return
    from opentelemetry.trace import SpanKind

    now = time.time_ns()
    span = _tracer.start_span(
        name,
        kind=SpanKind.SERVER,
        start_time=now - int(seconds * 1e9),
        attributes={**attributes, **_context_fields()},
    )
    span.end(now)


def _start_sentry(process_kind: str, dsn: str) -> None:
    try:
        import sentry_sdk
        from sentry_sdk.integrations.logging import LoggingIntegration
        from sentry_sdk.utils import BadDsn
    except ImportError:
        raise SettingError(f"SENTRY_DSN is set, but the package sentry-sdk is not installed. {_INSTALL_HINT}") from None
    try:
        sentry_sdk.init(
            dsn,
            release=__version__,
            # Errors are logged, and only the logging integration is needed; the others would read requests.
            default_integrations=False,
            auto_enabling_integrations=False,
            integrations=[LoggingIntegration(level=None)],
            max_breadcrumbs=0,
            send_default_pii=False,
            include_local_variables=False,
            auto_session_tracking=False,
            send_client_reports=False,
            before_send=lambda event, hint: _scrub_event(process_kind, event, hint),
        )
    except BadDsn:
        raise SettingError("SENTRY_DSN must look like https://KEY@HOST/PROJECT.") from None
    atexit.register(sentry_sdk.flush, _FLUSH_TIMEOUT_SECONDS)


def _scrub_event(process_kind: str, event: "Event", _hint: "Hint") -> "Event":
    """Return the event without anything that may contain user content."""
    scrubbed: dict[str, Any] = {name: value for name, value in event.items() if name in _ALLOWED_EVENT_FIELDS}
    scrubbed["tags"] = {"kind": process_kind, **_context_fields()}
    if "logentry" in scrubbed:
        # The message template without its values.
        scrubbed["logentry"] = {"message": scrubbed["logentry"].get("message", "")}
    for exception in scrubbed.get("exception", {}).get("values", []):
        exception.pop("value", None)
        exception.pop("mechanism", None)
        for frame in (exception.get("stacktrace") or {}).get("frames", []):
            for name in frame.keys() - _ALLOWED_FRAME_FIELDS:
                del frame[name]
    return scrubbed  # type: ignore[return-value]


def _context_fields() -> dict[str, str]:
    """Return the log context as a dictionary with at most one field."""
    context = log_context.get()
    return {} if context is None else {context[0]: context[1]}


def _start_tracing(process_kind: str) -> None:
    global _tracer
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise SettingError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but the packages opentelemetry-sdk and "
            f"opentelemetry-exporter-otlp-proto-http are not installed. {_INSTALL_HINT}"
        ) from None
    provider = TracerProvider(
        resource=Resource.create({"service.name": f"llm-bus-{process_kind}", "service.version": __version__})
    )
    # The exporter reads endpoint, interval and headers from the standard variables.
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = provider.get_tracer("llm-bus", __version__)
