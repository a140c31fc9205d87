"""Telemetry of a service: JSON log lines, and W3C trace context, which goes with every call and event.

With a collector set, spans of every call, applied event and executed job are exported by OpenTelemetry.
"""

import asyncio
import datetime as dt
import json
import logging
import re
import secrets
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from chassis.context import Call, current_call, enter_call

#: Lines of calls are written together after this time, so that a call does not wait for the write of its line.
_WRITE_SECONDS = 0.1

_encode = json.JSONEncoder(default=str).encode

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
        if isinstance(record, CallRecord):
            return _encode(entry | {"trace_id": trace_id(record.traceparent), **record.fields})
        if call := current_call():
            entry["trace_id"] = trace_id(call.traceparent)
        if record.exc_info:
            entry["exception"] = _ROW_VALUES.sub("", self.formatException(record.exc_info))
        extra = {name: value for name, value in vars(record).items() if name not in _STANDARD and name not in entry}
        try:
            return _encode(entry | extra)
        except Exception:  # noqa: BLE001  a value's own __str__ may raise anything
            return _encode(entry | dict.fromkeys(extra, "unprintable"))


class CallRecord(logging.LogRecord):
    """The record of a call's line: without what `logging` would find out about the thread and the code that logs."""

    def __init__(self, logger: str, level: int, fields: Mapping[str, object], traceparent: str) -> None:
        """Take the logger's name and the level; `fields` are those of the line besides its time and trace."""
        self.__dict__.update(_CALL_RECORD)
        self.name, self.levelno, self.levelname = logger, level, logging.getLevelName(level)
        self.created = time.time()
        self.fields = fields
        self.traceparent = traceparent


_CALL_RECORD = vars(logging.LogRecord("", logging.INFO, "", 0, "rpc", None, None))


class LineWriter(logging.StreamHandler[Any]):
    """Writes lines to a stream. Those of calls that went well are written every tenth of a second, all others at once.

    A process that is killed loses the lines of the calls that ended in its last tenth of a second, and no others.
    """

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._calls: list[CallRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Write the record, after those that wait, or let it wait."""
        if isinstance(record, CallRecord) and record.levelno <= logging.INFO:
            if not self._calls:
                asyncio.get_running_loop().call_later(_WRITE_SECONDS, self.flush)
            self._calls.append(record)
        else:
            self._write_calls()
            super().emit(record)

    def flush(self) -> None:
        """Write the lines that wait."""
        with self.lock or nullcontext():
            self._write_calls()
            super().flush()

    def _write_calls(self) -> None:
        calls, self._calls = self._calls, []
        try:
            if calls:
                self.stream.write("".join(self.format(call) + self.terminator for call in calls))
        except Exception:  # noqa: BLE001  such as a full disk
            self.handleError(calls[0])


def start_logging(service: str, level: str) -> None:
    """Log to standard error, one JSON object a line."""
    handler = LineWriter(sys.stderr)
    handler.setFormatter(JsonFormatter(service))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("aiokafka", "grpc", "httpx", "httpcore", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def new_traceparent() -> str:
    """Start a trace: a W3C traceparent with random ids, sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01"


def trace_id(traceparent: str) -> str:
    """Return the trace id of a traceparent, or an empty string."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) == 4 else ""


def extract(carrier: Mapping[str, str]) -> str:
    """Return the traceparent of the call whose metadata `carrier` is; a new one when it has no valid one.

    With tracing on it is that of the span which the instrumentation of gRPC started for the call.
    """
    if _tracing and (traceparent := _tracing.current()):
        return traceparent
    # Without tracing a regular expression does it: opentelemetry.propagate takes longer (docs/decisions/0009).
    traceparent = carrier.get("traceparent", "")
    return traceparent if _TRACEPARENT.fullmatch(traceparent) else new_traceparent()


def inject() -> dict[str, str]:
    """Return the trace context that calls, events and batches of the current call carry; empty outside of one.

    With tracing on, the instrumentation of gRPC replaces it in a call's metadata by that of the outgoing call's span.
    """
    call = current_call()
    return {"traceparent": call.traceparent} if call else {}


@contextmanager
def traced(traceparent: str, name: str) -> Iterator[None]:
    """Do work outside of a call, such as applying an event, as a part of the trace that caused it."""
    before = current_call()
    with _tracing.span(traceparent, name) if _tracing else nullcontext():
        enter_call(Call(method=name, traceparent=extract({"traceparent": traceparent})))
        try:
            yield
        finally:
            enter_call(before)


@dataclass(frozen=True, slots=True)
class _Tracing:
    """OpenTelemetry's API, whose imports cost a quarter of a second, as far as it is used here."""

    trace: Any
    propagate: Any

    def current(self) -> str:
        """Return the current span's traceparent, empty without a span."""
        carrier: dict[str, str] = {}
        self.propagate.inject(carrier)
        return carrier.get("traceparent", "")

    @contextmanager
    def span(self, traceparent: str, name: str) -> Iterator[None]:
        """Run the block as a span below `traceparent`; an error marks it, without its text, which may quote a row."""
        parent = self.propagate.extract({"traceparent": traceparent})
        tracer = self.trace.get_tracer(__name__)
        with tracer.start_as_current_span(name, parent, record_exception=False, set_status_on_exception=False) as span:
            try:
                yield
            except Exception:
                span.set_status(self.trace.StatusCode.ERROR)
                raise


_tracing: _Tracing | None = None


def start_tracing(service: str) -> None:
    """Export spans of every call, event and job to the collector that the OTEL_* variables name."""
    # Imported only where tracing is on: these imports cost half a second of every start.
    from opentelemetry import propagate, trace  # noqa: PLC0415
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
    global _tracing  # noqa: PLW0603  OpenTelemetry is set up for the whole process as well
    _tracing = _Tracing(trace, propagate)
