"""Composes svc_user."""

import logging
from datetime import timedelta
from functools import partial

from chassis import App, Database, run
from svc_user import store_sessions
from svc_user.bootstrap import ensure_admin
from svc_user.crypto import key_from_setting
from svc_user.domain_sessions import SessionLimits
from svc_user.message_sender import MessageSender
from svc_user.password_resets import PasswordResets
from svc_user.passwords import Passwords
from svc_user.service import UserService
from svc_user.service_addresses import AddressService
from svc_user.service_auth import AuthService
from svc_user.settings import Settings
from svc_user.signing_keys import SigningKeys, TokenPolicy

log = logging.getLogger(__name__)


async def compose(app: App, settings: Settings) -> None:
    """Put the service together."""
    secret = key_from_setting("SIGNING_KEY_SECRET", settings.signing_key_secret)
    policy = TokenPolicy(
        issuer=settings.token_issuer,
        audience=settings.token_audience,
        lifetime=timedelta(seconds=settings.access_token_seconds),
    )
    limits = SessionLimits(
        idle=timedelta(seconds=settings.session_idle_seconds), longest=timedelta(seconds=settings.session_seconds)
    )
    db = await app.database()
    passwords = Passwords(threads=settings.password_threads, queue=settings.password_queue)
    app.on_close(passwords.close)
    signing_keys = SigningKeys(db, secret, policy, rotation=timedelta(seconds=settings.key_rotation_seconds))
    await signing_keys.refresh()
    app.token_keys(signing_keys.key_set)
    if settings.admin_email:
        await ensure_admin(db, passwords, settings.admin_email, settings.admin_password)
    sender = _sender(app, settings)
    resets = PasswordResets(db, secret, sender)
    app.on_close(lambda: resets.worker.close(app.settings.drain_seconds))
    auth = AuthService(db, passwords, signing_keys, limits, resets)
    app.serve(AddressService(db), auth, UserService(db, passwords))
    app.background(resets.worker.run(settings.message_seconds))
    app.repeat(partial(_upkeep, db, signing_keys), settings.upkeep_seconds)
    throttles = timedelta(days=settings.throttle_retention_days)
    app.purge_older_than(db, "session", "expire_time", timedelta(days=settings.session_retention_days))
    app.purge_older_than(db, "login_throttle", "update_time", throttles)
    app.purge_older_than(db, "password_reset", "request_time", throttles)
    app.purge_older_than(db, "login_client", "login_time", timedelta(days=settings.login_client_retention_days))


def _sender(app: App, settings: Settings) -> MessageSender | None:
    if not settings.message_sender_url:
        log.warning("MESSAGE_SENDER_URL is not set: no codes for new passwords are sent")
        return None
    sender = MessageSender(url=settings.message_sender_url, key=settings.message_sender_key)
    app.on_close(sender.aclose)
    return sender


async def _upkeep(db: Database, signing_keys: SigningKeys) -> bool:
    await signing_keys.refresh()
    async with db.transaction() as tx:
        return await store_sessions.erase_successors(tx)


if __name__ == "__main__":
    run("svc_user", Settings, compose)
