"""What a service tells of itself: JSON log lines, and W3C trace context that goes with every call and event.

With a collector set, spans of every call are exported as well, by OpenTelemetry's own instrumentation.
"""

import datetime as dt
import json
import logging
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from chassis.context import Call, current_call, enter_call

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _JsonFormatter(logging.Formatter):
    def __init__(self, service: str) -> None:
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
        entry |= {name: value for name, value in vars(record).items() if name not in _STANDARD}
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def start_logging(service: str, level: str) -> None:
    """Log to standard error, one JSON object a line."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter(service))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("aiokafka", "httpx", "httpcore", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def new_traceparent() -> str:
    """Start a trace: a W3C traceparent with random ids, sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def trace_id(traceparent: str) -> str:
    """Return the trace id of a traceparent, or an empty string."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) == 4 else ""


@contextmanager
def traced(traceparent: str, name: str) -> Iterator[None]:
    """Do something outside of a call, such as applying an event, as a part of the trace that caused it."""
    before = current_call()
    enter_call(Call(method=name, traceparent=traceparent or new_traceparent()))
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
