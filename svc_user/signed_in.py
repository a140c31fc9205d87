"""Who calls, as the database knows them now: an access token can outlive its session and its user's roles."""

from chassis import Transaction, current_call, current_user
from shop.chassis.v1.chassis_errors import RoleMissing, TokenInvalid
from shop.contract import RPCS
from svc_user import store
from svc_user.domain import Account


async def signed_in(tx: Transaction) -> Account:
    """Return the caller's account; raises TokenInvalid after the session, RoleMissing after the role."""
    user, call = current_user(), current_call()
    assert call is not None, "a user comes with a call"
    account = await store.find_signed_in(tx, user.id, user.session_id)
    if account is None:
        raise TokenInvalid
    roles = RPCS[call.method].roles
    if roles and account.roles.isdisjoint(roles):
        raise RoleMissing(roles=", ".join(roles))
    return account
