"""W3C trace context: every request is part of one trace, the client's or a new one."""

import random
import re
from collections.abc import Mapping

_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_LENGTH = 55
#: Longer tracestates are dropped, as W3C allows.
_MAX_STATE = 512


class TraceContext:
    """Continues or starts traces; decides once, for all services, whether a new trace is sampled."""

    def __init__(self, share: float) -> None:
        self._share = share

    def metadata(self, headers: Mapping[bytes, bytes]) -> list[tuple[str, str]]:
        """Return the trace metadata of a request, traceparent first."""
        given = headers.get(b"traceparent")
        if given is None or not _is_traceparent(given):
            flags = "01" if random.random() < self._share else "00"  # noqa: S311 - ids are no secrets
            ids = f"{random.getrandbits(128):032x}-{random.getrandbits(64):016x}"
            return [("traceparent", f"00-{ids}-{flags}")]
        context = [("traceparent", "00" + given[2:_LENGTH].decode())]
        state = headers.get(b"tracestate", b"")
        if 0 < len(state) <= _MAX_STATE and state.isascii():
            context.append(("tracestate", state.decode()))
        return context


def _is_traceparent(text: bytes) -> bool:
    """Return whether a text is a traceparent of version 00, or of a later version, which may append parts."""
    rest = text[_LENGTH:]
    return _TRACEPARENT.fullmatch(text[:_LENGTH]) is not None and (
        not rest or (rest.startswith(b"-") and not text.startswith(b"00"))
    )
