"""The call being served: who makes it, for whom, until when. One ContextVar, set by the server interceptor."""

import time
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc

#: What a handler may use of its host: only what grpc.aio promises, so that another host can serve the same servicers.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """An end user, as their verified access token says."""

    id: str
    roles: frozenset[str] = frozenset()
    session_id: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One RPC being served."""

    #: Full method path, `/shop.order.v1.OrderService/GetOrder`.
    method: str
    #: The calling workload: `edge` or a service's name.
    caller: str = ""
    user: User | None = None
    #: The end user's Authorization header, handed on to the services that this call calls.
    authorization: str = ""
    #: W3C trace context.
    traceparent: str = ""
    #: time.monotonic() at which nobody waits for the answer any more; None for an unbounded stream.
    deadline: float | None = None
    #: The owners of resources that the handler has compared with the user.
    owner_checks: list[str] = field(default_factory=list)
    #: Metadata that the answer will carry beside the message.
    trailers: dict[str, str] = field(default_factory=dict)

    def remaining(self) -> float | None:
        """Seconds left, never negative; None when unbounded."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


_current: ContextVar[Call | None] = ContextVar("call", default=None)


def current_call() -> Call | None:
    """Return the call that this task serves, None outside of one, as in a background task."""
    return _current.get()


def current_user() -> User:
    """Return the end user; only for RPCs whose contract demands one."""
    call = _current.get()
    if call is None or call.user is None:
        raise LookupError("no end user: the contract of this RPC does not demand one")
    return call.user


def enter_call(call: Call | None) -> None:
    """Make `call` the current one for the rest of this task."""
    _current.set(call)
