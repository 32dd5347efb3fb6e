"""Errors to Sentry and traces to OpenTelemetry, where settings ask for them; nothing that anybody wrote leaves.

Both are optional packages (`llm-bus[observe]`). What is sent is made of our own words only: names of tools, routes and
jobs, outcomes, types of exceptions, lines of our code and the id of the request. The texts of exceptions and the
values in log messages stay here, since they may quote anything: a body, a token, an address.
"""

import atexit
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from bus import __version__
from bus.config.settings import SettingError
from bus.operations.logs import log_context

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer
    from sentry_sdk.types import Event, Hint

_INSTALL_HINT = "Install llm-bus[observe], or leave the variable out."
_FLUSH_TIMEOUT_SECONDS = 2.0
# What an event may hold; what is not named here is not sent.
_ALLOWED_EVENT_FIELDS = frozenset(
    {"event_id", "timestamp", "level", "logger", "platform", "release", "environment", "exception", "logentry", "sdk"}
)
_ALLOWED_FRAME_FIELDS = frozenset(
    {"filename", "abs_path", "function", "module", "lineno", "pre_context", "context_line", "post_context", "in_app"}
)

_tracer: "Tracer | None" = None


def start_telemetry(process_kind: str, env: Mapping[str, str]) -> None:
    """Begin to send what the settings ask for: SENTRY_DSN, OTEL_EXPORTER_OTLP_ENDPOINT; call it once, at the start.

    Args:
        kind: of process, as in bus/operations/process_registry.py.

    Raises:
        SettingError: a setting is there and its package is not, or it makes no sense.
    """
    dsn = env.get("SENTRY_DSN", "").strip()
    if dsn:
        _start_sentry(process_kind, dsn)
    if env.get("OTEL_EXPORTER_OTLP_ENDPOINT", "").strip():
        _start_tracing(process_kind)


def is_tracing() -> bool:
    """Whether spans are sent; asked where even the arguments of `span` would cost too much."""
    return _tracer is not None


def record_span(name: str, seconds: float, **attributes: str | int) -> None:
    """Note something that has just ended, as a span; costs nothing where no traces are sent.

    Args:
        name: from a small set.
        attributes: words of ours and numbers.
    """
    if _tracer is None:
        return
    from opentelemetry.trace import SpanKind

    now = time.time_ns()
    about = log_context.get()
    noted = _tracer.start_span(
        name,
        kind=SpanKind.SERVER,
        start_time=now - int(seconds * 1e9),
        attributes={**attributes, **({about[0]: about[1]} if about else {})},
    )
    noted.end(now)


def _start_sentry(process_kind: str, dsn: str) -> None:
    try:
        import sentry_sdk
        from sentry_sdk.integrations.logging import LoggingIntegration
        from sentry_sdk.utils import BadDsn
    except ImportError:
        raise SettingError(f"SENTRY_DSN is set and the package sentry-sdk is not installed. {_INSTALL_HINT}") from None
    try:
        sentry_sdk.init(
            dsn,
            release=__version__,
            # Every defect of ours is logged; nothing else looks into requests.
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
    """An event with our own words only."""
    kept: dict[str, Any] = {name: value for name, value in event.items() if name in _ALLOWED_EVENT_FIELDS}
    about = log_context.get()
    kept["tags"] = {"kind": process_kind, **({about[0]: about[1]} if about else {})}
    if "logentry" in kept:
        # The words of the message without the values in it.
        kept["logentry"] = {"message": kept["logentry"].get("message", "")}
    for one in kept.get("exception", {}).get("values", []):
        one.pop("value", None)
        one.pop("mechanism", None)
        for frame in (one.get("stacktrace") or {}).get("frames", []):
            for name in frame.keys() - _ALLOWED_FRAME_FIELDS:
                del frame[name]
    return kept  # type: ignore[return-value]


def _start_tracing(process_kind: str) -> None:
    global _tracer
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError:
        raise SettingError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set and the packages opentelemetry-sdk and "
            f"opentelemetry-exporter-otlp-proto-http are not installed. {_INSTALL_HINT}"
        ) from None
    provider = TracerProvider(
        resource=Resource.create({"service.name": f"llm-bus-{process_kind}", "service.version": __version__})
    )
    # Where to, how often and with which headers: the standard variables, which the exporter reads itself.
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = provider.get_tracer("llm-bus", __version__)
