"""What a service tells of itself: JSON log lines, and W3C trace context that goes with every call and event.

With a collector set, spans of every call are exported as well, by OpenTelemetry's own instrumentation.
"""

import datetime as dt
import json
import logging
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chassis.context import Call, current_call, enter_call

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


#: Of what PostgreSQL says, the part that quotes a row's values.
_ROW_VALUES = re.compile(r"^DETAIL: .*\n?", re.MULTILINE)

#: W3C Trace Context, version 00.
_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class JsonFormatter(logging.Formatter):
    """Makes log lines of a service."""

    def __init__(self, service: str) -> None:
        """`service` is named in every line."""
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        """One line: JSON escapes line ends, so that no value can forge a second one."""
        entry: dict[str, Any] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "service": self._service,
            "message": record.getMessage(),
        }
        if call := current_call():
            entry["trace_id"] = trace_id(call.traceparent)
        if record.exc_info:
            entry["exception"] = _ROW_VALUES.sub("", self.formatException(record.exc_info))
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD and name not in entry}
        try:
            return json.dumps(entry | extra, default=str)
        except Exception:  # noqa: BLE001  whatever a value's own text raises
            return json.dumps(entry | dict.fromkeys(extra, "unprintable"))


def start_logging(service: str, level: str) -> None:
    """Log to standard error, one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("aiokafka", "grpc", "httpx", "httpcore", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def new_traceparent() -> str:
    """Start a trace: a W3C traceparent with random ids, sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def valid_traceparent(text: str) -> str:
    """Return `text` when it is a traceparent, else a new one: from outside may come anything."""
    return text if _TRACEPARENT.fullmatch(text) else new_traceparent()


def trace_id(traceparent: str) -> str:
    """Return the trace id of a traceparent, or an empty string."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) == 4 else ""


@contextmanager
def traced(traceparent: str, name: str) -> Iterator[None]:
    """Do something outside of a call, such as applying an event, as a part of the trace that caused it."""
    before = current_call()
    enter_call(Call(method=name, traceparent=valid_traceparent(traceparent)))
    try:
        yield
    finally:
        enter_call(before)


def start_tracing(service: str) -> None:
    """Export spans of every call to the collector that the OTEL_* variables name."""
    # Imported only where tracing is on: these imports cost half a second of every start.
    from opentelemetry import trace  # noqa: PLC0415
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.instrumentation.grpc import (  # noqa: PLC0415
        GrpcAioInstrumentorClient,
        GrpcAioInstrumentorServer,
    )
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    provider = TracerProvider(resource=Resource.create({"service.name": service}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    GrpcAioInstrumentorServer().instrument()  # type: ignore[no-untyped-call]
    GrpcAioInstrumentorClient().instrument()  # type: ignore[no-untyped-call]
