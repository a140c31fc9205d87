"""The end of a stream: its longest duration, or the expiry or revocation of the access token that opened it."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TypeVar

from chassis.context import Call
from chassis.rpc.revocations import Revocations
from shop.chassis.v1 import chassis_errors
from shop.errors import ShopError

T = TypeVar("T")

#: Streams that began together end spread over this part of their duration.
_SPREAD = 0.1


class StreamLifetime:
    """Bounds one stream. A client resumes it by the last resume_token, with a token that is valid then."""

    def __init__(self, call: Call, seconds: float) -> None:
        """End the call's stream after at most `seconds`."""
        self._error: ShopError = chassis_errors.StreamExpired()
        remaining = seconds * random.uniform(1 - _SPREAD, 1)  # noqa: S311  no secret
        if call.user and (valid := call.user.expire_time - time.time()) < remaining:
            self._error, remaining = chassis_errors.TokenInvalid(), valid
        self._end = asyncio.get_running_loop().time() + remaining
        self._timer: asyncio.Timeout | None = None
        self._session_id = call.user.session_id if call.user else ""

    @contextmanager
    def until_revoked(self, revocations: Revocations) -> Iterator[None]:
        """End the stream during the block when the session of its user ends."""
        with revocations.calling(self._session_id, self._revoke):
            if self._session_id in revocations:  # since the token was verified
                self._revoke()
            yield

    def _revoke(self) -> None:
        self._error, self._end = chassis_errors.TokenInvalid(), asyncio.get_running_loop().time()
        if self._timer is not None and not self._timer.expired():
            self._timer.reschedule(self._end)

    async def next(self, messages: AsyncIterator[T]) -> T | None:
        """Return the next message, None at the stream's own end; raises StreamExpired or TokenInvalid at ours."""
        try:
            async with asyncio.timeout_at(self._end) as timer:
                self._timer = timer
                return await anext(messages, None)
        except TimeoutError:
            if timer.expired():
                raise self._error from None
            raise
        finally:
            self._timer = None
