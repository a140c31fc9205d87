"""The contract's `access` and `callers`, applied to one call."""

from collections.abc import Callable, Mapping
from urllib.parse import unquote

from chassis.context import Call, User, current_call, current_user
from chassis.rpc.auth import TokenRejected, TokenVerifier
from shop.chassis.v1 import chassis_errors
from shop.contract import Access, Rpc
from shop.errors import ShopError

#: Set by our own clients, by the edge, and by the ingress, which removes it from everything that comes from outside.
_CALLER_KEY = "x-shop-caller"
#: The client's address: the ingress replaces what comes from outside, and the edge hands on what it got from there.
_CLIENT_KEY = "x-forwarded-for"


def calling_workload(metadata: Mapping[str, str]) -> str:
    """Return the workload that calls. The one place to change when the mesh proves it by certificate."""
    return metadata.get(_CALLER_KEY, "")


def client_address(metadata: Mapping[str, str], peer: Callable[[], str]) -> str:
    """Return the address of the client outside, or of the gRPC peer, which `peer` returns, where no proxy names one."""
    if forwarded := metadata.get(_CLIENT_KEY):
        return forwarded.rpartition(",")[2].strip()
    kind, _, place = peer().partition(":")
    return unquote(place).rpartition(":")[0].strip("[]") if kind in ("ipv4", "ipv6") else kind


async def identify(rule: Rpc, call: Call, verifier: TokenVerifier) -> None:
    """Set the call's end user; raises CallerDenied, TokenMissing or TokenInvalid."""
    if not rule.admits(call.caller):
        raise chassis_errors.CallerDenied(method=call.method, caller=call.caller or "unknown")
    if _needs_no_user(rule, call) or (rule.access is Access.PUBLIC and not call.authorization):
        return
    if not call.authorization:
        raise chassis_errors.TokenMissing
    try:
        call.user = await verifier.verify(_bearer(call.authorization))
    except TokenRejected:
        if rule.access is not Access.PUBLIC:
            raise chassis_errors.TokenInvalid from None


def _needs_no_user(rule: Rpc, call: Call) -> bool:
    """Return whether the workload calls on its own behalf, so that the end user does not count."""
    return rule.access is Access.WORKLOAD or call.caller in rule.workloads


def authorize(rule: Rpc, call: Call) -> None:
    """Raise RoleMissing when the end user has none of the roles that the contract requires."""
    if _needs_no_user(rule, call):
        return
    if rule.access is Access.ROLES and not (call.user and call.user.roles.intersection(rule.roles)):
        raise chassis_errors.RoleMissing(roles=", ".join(rule.roles))


def require_owner(owner_id: str, not_found: ShopError) -> None:
    """Raise `not_found` unless the end user owns the resource, or has a role that the method's ACCESS_OWNER names."""
    call, user = current_call(), current_user()
    if call is not None:
        call.owner_checks.append(owner_id)
    if owner_id != user.id and not _sees_all(user):
        raise not_found


def owner_filter(requested: str = "") -> str:
    """Return the user whose resources a list shows: for a role that sees all, `requested`, empty for all users."""
    call, user = current_call(), current_user()
    owner_id = requested if _sees_all(user) else user.id
    if call is not None:
        call.owner_checks.append(owner_id)
    return owner_id


def _sees_all(user: User) -> bool:
    """Return whether the user has one of the roles of an ACCESS_OWNER method; no user has one without a contract."""
    call = current_call()
    rule = call.rule if call else None
    return rule is not None and rule.access is Access.OWNER and bool(user.roles.intersection(rule.roles))


def _bearer(authorization: str) -> str:
    scheme, _, token = authorization.partition(" ")
    if scheme.lower() != "bearer":
        raise TokenRejected("not a bearer token")
    return token.strip()
