"""Every RPC: its callers, deadline, rate limit and idempotency level."""

from dataclasses import dataclass
from enum import Enum
from typing import Final


class Access(Enum):
    """The end user that an RPC requires."""

    PUBLIC = "public"
    """Anyone, with or without a token."""
    USER = "user"
    """A signed-in user."""
    ROLES = "roles"
    """A signed-in user who has one of `Rpc.roles`."""
    WORKLOAD = "workload"
    """No end user: the calling workload alone decides."""
    OWNER = "owner"
    """A signed-in user: the resource's owner, or one who has one of `Rpc.roles`."""


class IdempotencyLevel(Enum):
    """google.protobuf.MethodOptions.IdempotencyLevel."""

    UNKNOWN = "unknown"
    NO_SIDE_EFFECTS = "no_side_effects"
    IDEMPOTENT = "idempotent"


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """At most `requests` calls of one client in `per` seconds."""

    requests: int
    per: float
    fail_closed: bool = False


#: The workload that all calls from outside arrive as.
EDGE: Final = "edge"
#: As a caller: every workload of the mesh, which the edge is not.
ANY_WORKLOAD: Final = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rpc:
    """One method. Times are in seconds."""

    service: str
    method: str
    request_type: str
    response_type: str
    access: Access
    callers: tuple[str, ...]
    roles: tuple[str, ...] = ()
    timeout: float | None = None
    rate_limit: RateLimit | None = None
    audit: bool = False
    token_keys: bool = False
    #: The callers that need no end user although the method has ACCESS_ROLES.
    workloads: tuple[str, ...] = ()
    token_revocations: bool = False
    idempotency_level: IdempotencyLevel = IdempotencyLevel.UNKNOWN
    has_request_id: bool = False
    has_http: bool = False
    client_streaming: bool = False
    server_streaming: bool = False

    def admits(self, caller: str) -> bool:
        """Return whether the workload may call; an empty name is no workload."""
        return caller in self.callers or (ANY_WORKLOAD in self.callers and caller not in ("", EDGE))


# By the HTTP/2 path of a call.
RPCS: Final[dict[str, Rpc]] = {}  # filled by mesh.codegen
