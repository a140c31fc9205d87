"""The account of the caller as it is in the database: an access token can outlive its session and its user's roles."""

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from google.protobuf.message import Message

from chassis import Context, Database, Transaction, current_call, current_user
from shop.chassis.v1.chassis_errors import RoleMissing, TokenInvalid
from shop.contract import RPCS
from svc_user import store
from svc_user.domain import Account


class Servicer(Protocol):
    """A servicer whose handlers may require a live session."""

    db: Database


S = TypeVar("S", bound=Servicer)
Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)
P = ParamSpec("P")

Rpc = Callable[Concatenate[S, Request, Context, P], Coroutine[Any, Any, Reply]]


async def current_account(tx: Transaction) -> Account:
    """Return the caller's account; raises TokenInvalid after the end of the session, RoleMissing without the role."""
    user, call = current_user(), current_call()
    assert call is not None, "a user comes with a call"
    account = await store.find_account_of_session(tx, user.id, user.session_id)
    if account is None:
        raise TokenInvalid
    roles = RPCS[call.method].roles
    if roles and account.roles.isdisjoint(roles):
        raise RoleMissing(roles=", ".join(roles))
    return account


def requires_session(rpc: Rpc[S, Request, P, Reply]) -> Rpc[S, Request, P, Reply]:
    """Run a transactional handler only for a caller with a live session; raises as `current_account` does.

    The check comes before the transaction: its error must not be stored as the result of the `request_id`.
    """

    @wraps(rpc)
    async def checked(self: S, request: Request, context: Context, /, *args: P.args, **kwargs: P.kwargs) -> Reply:
        async with self.db.connection() as connection:
            await current_account(connection)
        return await rpc(self, request, context, *args, **kwargs)

    return checked
