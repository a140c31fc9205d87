"""Revocations: sessions that have ended although their access tokens have not expired yet.

svc_user streams them to every process, so that none has to ask about each call.
"""

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager

log = logging.getLogger(__name__)

#: Streams batches of ended sessions by id, each with the Unix time at which the last of its tokens expires. The first
#: batch has all of them; a later one may be empty, as a sign of life.
RevocationSource = Callable[[], AsyncGenerator[Mapping[str, float], None]]

#: A source that is silent for longer is replaced; it sends a batch at least every ten seconds.
_SILENCE_SECONDS = 30.0
_RETRY_SECONDS = 1.0


class Revocations:
    """The ended sessions whose tokens may not have expired."""

    def __init__(self) -> None:
        """Begin without any; `follow` receives them."""
        self._expiries: dict[str, float] = {}
        self._callbacks: defaultdict[str, set[Callable[[], None]]] = defaultdict(set)

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._expiries

    def __len__(self) -> int:
        return len(self._expiries)

    def add(self, sessions: Mapping[str, float]) -> None:
        """Revoke the tokens of these sessions until their expiries, and forget sessions whose tokens have expired."""
        now = time.time()
        for session_id in [one for one, expiry in self._expiries.items() if expiry <= now]:
            del self._expiries[session_id]
        for session_id in sessions.keys() - self._expiries.keys():
            self._expiries[session_id] = sessions[session_id]
            for callback in tuple(self._callbacks.get(session_id, ())):
                callback()

    @contextmanager
    def calling(self, session_id: str, callback: Callable[[], None]) -> Iterator[None]:
        """Call `callback` when the session is revoked during the block."""
        self._callbacks[session_id].add(callback)
        try:
            yield
        finally:
            self._callbacks[session_id].discard(callback)
            if not self._callbacks[session_id]:
                del self._callbacks[session_id]

    async def follow(self, source: RevocationSource) -> None:
        """Receive revocations until cancelled; while the source is away, those that are known stay in force."""
        connected = True
        while True:
            try:
                async with aclosing(source()) as batches:
                    while True:
                        async with asyncio.timeout(_SILENCE_SECONDS):
                            self.add(await anext(batches))
                        connected = True
            except Exception as error:  # noqa: BLE001  whatever ended the stream, it is opened again
                if connected:
                    log.warning("revocations are not received", extra={"error": repr(error)})
                connected = False
            await asyncio.sleep(_RETRY_SECONDS)
