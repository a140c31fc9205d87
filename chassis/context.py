"""The call being served: its caller, end user and deadline. One ContextVar, set by the server interceptor."""

import math
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc

from shop.contract import Access, Rpc

#: The context of a handler: only the interface of grpc.aio, so that another server can host the same servicers.
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


@dataclass(frozen=True, slots=True, kw_only=True)
class User:
    """An end user, by their verified access token."""

    id: str
    roles: frozenset[str] = frozenset()
    session_id: str = ""
    #: Unix time at which the token expires.
    expire_time: float = math.inf


@dataclass(slots=True)
class Audit:
    """What the audit log records of a privileged call."""

    #: Without sensitive fields.
    request: Mapping[str, Any]
    outcome: str = "OK"
    #: The id and the hash of its row, once that has committed; a repeated request has the row of the first one.
    row: Mapping[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True, eq=False)
class Call:
    """One RPC being served. The pipeline fills it step by step; a handler only reads it."""

    #: Full method path, `/shop.order.v1.OrderService/GetOrder`.
    method: str
    #: The method's contract; None for work outside of an RPC.
    rule: Rpc | None = None
    #: The calling workload: `edge` or a service's name.
    caller: str = ""
    #: The address of the client outside, as the ingress saw it; of a call between services, the caller's own.
    address: str = ""
    user: User | None = None
    #: The end user's Authorization header, passed on to the services that this call calls.
    authorization: str = ""
    #: W3C trace context.
    traceparent: str = ""
    #: time.monotonic() at which the caller stops waiting; None for an unbounded stream.
    deadline: float | None = None
    #: None unless the call is privileged.
    audit: Audit | None = None
    #: The owners of resources that the handler has compared with the user.
    owner_checks: list[str] = field(default_factory=list)
    #: Initial metadata of the reply.
    headers: dict[str, str] = field(default_factory=dict)
    #: Trailing metadata of the reply.
    trailers: dict[str, str] = field(default_factory=dict)

    @property
    def client(self) -> str:
        """Whose limits the call counts against: the end user, or else the client's address."""
        return f"user {self.user.id}" if self.user else f"address {self.address}"

    def remaining(self) -> float | None:
        """Return the seconds left, never negative; None when unbounded."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


_current: ContextVar[Call | None] = ContextVar("call", default=None)


def current_call() -> Call | None:
    """Return the call that this task serves, None outside of one, as in a background task."""
    return _current.get()


def current_user() -> User:
    """Return the end user; only for RPCs whose contract requires one; raises LookupError."""
    call = _current.get()
    if call is None or call.user is None:
        raise LookupError("no end user: the contract of this RPC does not require one")
    return call.user


def assert_owner_checked() -> None:
    """Raise AssertionError when the contract requires an owner check and the handler has made none."""
    call = _current.get()
    if call and not call.owner_checks and call.rule and call.rule.access is Access.OWNER:
        raise AssertionError(f"{call.method} does not check who owns the resource")


def enter_call(call: Call | None) -> None:
    """Make `call` the current one for the rest of this task."""
    _current.set(call)
