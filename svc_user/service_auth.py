"""The RPCs of sign-in, sessions and public keys.

No password is verified inside of a transaction, and no secret is stored as it is.
"""

import logging
import uuid
from dataclasses import replace
from datetime import datetime

from google.protobuf.empty_pb2 import Empty

from chassis import Context, Database, Transaction, current_user
from shop.user.v1 import auth_service_pb2 as pb
from shop.user.v1.auth_service_pb2_grpc import AuthServiceServicer
from shop.user.v1.user_errors import BadCredentials, RefreshTokenInvalid, TokenReused
from svc_user import domain, store
from svc_user.domain import Account, End, Exchange, Session, SessionLimits
from svc_user.keyring import Keyring
from svc_user.passwords import Passwords
from svc_user.sealing import digest, key_of_token, new_token, seal, unseal

audit = logging.getLogger("chassis.audit")


class AuthService(AuthServiceServicer):
    """Signs users in and out, and publishes the keys of their access tokens."""

    def __init__(self, db: Database, passwords: Passwords, keyring: Keyring, limits: SessionLimits) -> None:
        """Sign access tokens with `keyring`; sessions last as `limits` say."""
        self.db = db
        self.passwords = passwords
        self.keyring = keyring
        self.limits = limits

    async def Login(self, request: pb.LoginRequest, context: Context) -> pb.Tokens:
        email = domain.normalised(request.email)
        async with self.db.transaction() as tx:
            throttle = await store.lock_throttle(tx, digest(email))
            await store.update_throttle(tx, digest(email), throttle.counted(await store.read_now(tx)))
            account = await store.find_account(tx, email)
        stored = account.password_hash if account else None
        right = await self.passwords.verify(request.password, stored)
        if account is None or stored is None or not right:
            raise BadCredentials
        renewed = await self.passwords.hash(request.password) if self.passwords.outdated(stored) else None
        async with self.db.transaction() as tx:
            account = await store.lock_account(tx, account.id)  # roles must not be lost between here and the session
            await store.delete_throttle(tx, digest(email))
            if renewed:
                await store.update_password_hash(tx, account.id, renewed)
            return await self._begin_session(tx, account)

    async def RefreshToken(self, request: pb.RefreshTokenRequest, context: Context) -> pb.Tokens:
        presented = request.refresh_token
        successor: str | None = None
        async with self.db.transaction() as tx:
            session = await store.lock_session_of_token(tx, digest(presented))
            if session is None:
                raise RefreshTokenInvalid
            token, now = await store.read_token(tx, digest(presented)), await store.read_now(tx)
            match domain.exchange(session, token, now):
                case Exchange.ROTATE:
                    successor = await self._rotate(tx, session, presented, now)
                case Exchange.REPEAT:
                    assert token.sealed_successor is not None, "or it would not be repeated"
                    successor = unseal(key_of_token(presented), token.sealed_successor, session.id).decode()
                case Exchange.REUSED:
                    await store.end_session(tx, session.id, End.TOKEN_REUSED)
            account = await store.read_account(tx, session.user_id)
        if successor is None:  # the end of the session is committed: now it can be told
            audit.warning("authn_token_reuse", extra={"user": account.id, "session": session.id})
            raise TokenReused
        return self._tokens(account, session.id, successor, now)

    async def Logout(self, request: pb.LogoutRequest, context: Context) -> Empty:
        user = current_user()
        async with self.db.transaction() as tx:
            if request.all_sessions:
                await store.end_sessions(tx, user.id, End.SIGNED_OUT)
            else:
                await store.end_session(tx, user.session_id, End.SIGNED_OUT)
        return Empty()

    async def GetJwks(self, request: pb.GetJwksRequest, context: Context) -> pb.JsonWebKeySet:
        return pb.JsonWebKeySet(keys=[pb.JsonWebKey(**key) for key in self.keyring.public_keys()])

    async def _begin_session(self, tx: Transaction, account: Account) -> pb.Tokens:
        now = await store.read_now(tx)
        expire_time = self.limits.expire_time(now, now)
        session = Session(id=uuid.uuid4().hex, user_id=account.id, create_time=now, expire_time=expire_time)
        token = new_token()
        await store.insert_session(tx, session, digest(token))
        return self._tokens(account, session.id, token, now)

    async def _rotate(self, tx: Transaction, session: Session, presented: str, now: datetime) -> str:
        """Return the successor of the live token, left behind in a box that the token opens, in case of a repeat."""
        successor = new_token()
        sealed = seal(key_of_token(presented), successor.encode(), session.id)
        extended = replace(session, expire_time=self.limits.expire_time(session.create_time, now))
        await store.rotate_token(tx, extended, digest(presented), digest(successor), sealed)
        return successor

    def _tokens(self, account: Account, session_id: str, refresh_token: str, now: datetime) -> pb.Tokens:
        return pb.Tokens(
            access_token=self.keyring.sign(account.id, session_id, account.roles, now),
            refresh_token=refresh_token,
            token_type="Bearer",  # noqa: S106  no secret
            expires_in=int(self.keyring.rules.lifetime.total_seconds()),
        )
