"""Registration, sign-in and sessions. No password is hashed inside of a transaction, and no secret stored as it is."""

import logging
import uuid
from dataclasses import replace
from datetime import datetime

from google.protobuf.empty_pb2 import Empty

from chassis import Context, Database, Transaction, current_user, outbox
from shop.user.v1 import user_service_pb2 as pb
from shop.user.v1.user_errors import BadCredentials, EmailTaken, RefreshTokenInvalid, TokenReused
from shop.user.v1.user_service_pb2_grpc import UserServiceServicer
from svc_user import domain, messages, store
from svc_user.domain import Account, End, Exchange, Session, SessionLimits
from svc_user.keyring import Keyring
from svc_user.passwords import Passwords
from svc_user.sealing import digest, key_of_token, new_token, seal, unseal

audit = logging.getLogger("chassis.audit")


class SessionRpcs(UserServiceServicer):
    """The part of UserService that lets people in and out."""

    def __init__(self, db: Database, passwords: Passwords, keyring: Keyring, limits: SessionLimits) -> None:
        """Sign access tokens with `keyring`; sessions last as `limits` say."""
        self.db = db
        self.passwords = passwords
        self.keyring = keyring
        self.limits = limits

    async def Register(self, request: pb.RegisterRequest, context: Context) -> pb.User:
        # Not by chassis.once: its record would keep a fast hash of the password. The email address is the key instead.
        email = domain.normalised(request.email)
        password_hash = await self.passwords.hash(request.password)
        async with self.db.transaction() as tx:
            now = await store.read_now(tx)
            account = Account(
                id=uuid.uuid4().hex,
                email=email,
                password_hash=password_hash,
                registration_id=request.request_id,
                display_name=request.display_name,
                create_time=now,
                update_time=now,
            )
            if await store.insert_account(tx, account):
                await outbox.add(tx, messages.registered(account))
                return messages.account_to_proto(account)
            known = await store.find_account(tx, email)
        assert known is not None, "accounts are never deleted"
        if known.registration_id != request.request_id:
            raise EmailTaken
        if not await self.passwords.verify(request.password, known.password_hash):
            raise EmailTaken
        return messages.account_to_proto(known)

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
