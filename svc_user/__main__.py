"""Composes svc_user."""

from datetime import timedelta
from functools import partial

from chassis import App, Database, run
from shop.user.v1.address_service_pb2_grpc import add_AddressServiceServicer_to_server
from shop.user.v1.auth_service_pb2_grpc import add_AuthServiceServicer_to_server
from shop.user.v1.user_service_pb2_grpc import add_UserServiceServicer_to_server
from svc_user import store
from svc_user.bootstrap import ensure_admin
from svc_user.domain import SessionLimits
from svc_user.keyring import Keyring, TokenRules
from svc_user.passwords import Passwords
from svc_user.sealing import key_of_setting
from svc_user.service import UserService
from svc_user.service_addresses import AddressService
from svc_user.service_auth import AuthService
from svc_user.settings import Settings


async def compose(app: App, settings: Settings) -> None:
    """Put the service together."""
    secret = key_of_setting("SIGNING_KEY_SECRET", settings.signing_key_secret)
    rules = TokenRules(
        issuer=settings.token_issuer,
        audience=settings.token_audience,
        lifetime=timedelta(seconds=settings.access_token_seconds),
    )
    limits = SessionLimits(
        idle=timedelta(seconds=settings.session_idle_seconds), longest=timedelta(seconds=settings.session_seconds)
    )
    db = await app.database()
    passwords = Passwords(threads=settings.password_threads, waiting=settings.password_queue)
    app.on_close(passwords.close)
    keyring = Keyring(db, secret, rules, rotation=timedelta(seconds=settings.key_rotation_seconds))
    await keyring.refresh()
    app.token_keys(keyring.document)
    if settings.admin_email:
        await ensure_admin(db, passwords, settings.admin_email, settings.admin_password)
    auth = AuthService(db, passwords, keyring, limits)
    app.serve("shop.user.v1.AddressService", AddressService(db), add_AddressServiceServicer_to_server)
    app.serve("shop.user.v1.AuthService", auth, add_AuthServiceServicer_to_server)
    app.serve("shop.user.v1.UserService", UserService(db, passwords), add_UserServiceServicer_to_server)
    app.repeat(partial(_upkeep, db, keyring), settings.upkeep_seconds)


async def _upkeep(db: Database, keyring: Keyring) -> bool:
    await keyring.refresh()
    async with db.transaction() as tx:
        await store.purge_expired(tx)
    return False


if __name__ == "__main__":
    run("svc_user", Settings, compose)
