"""The RPCs of logins, sessions and public keys.

No password is verified inside a transaction, and no secret is stored as plain text.
"""

import logging
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from datetime import datetime, timedelta

from google.protobuf.empty_pb2 import Empty

from chassis import Context, Database, Transaction, current_time, current_user, outbox
from chassis.rpc.rate_limit import calling_network
from shop.user.v1 import auth_service_pb2 as pb
from shop.user.v1.auth_service_pb2_grpc import AuthServiceServicer
from shop.user.v1.user_errors import BadCredentials, RefreshTokenInvalid, TokenReused
from svc_user import converters, domain, domain_sessions, store, store_logins, store_sessions
from svc_user.crypto import decrypt, encrypt, family_of, key_from_token, new_token, new_token_of
from svc_user.current_account import current_account
from svc_user.domain import Account
from svc_user.domain_logins import LoginClient
from svc_user.domain_passwords import check_password
from svc_user.domain_sessions import RefreshResult, Session, SessionEndReason, SessionLimits
from svc_user.password_resets import PasswordResets
from svc_user.passwords import Passwords
from svc_user.signing_keys import SigningKeys

audit = logging.getLogger("chassis.audit")

#: The end time of a session is when its transaction began, which is seen when it has committed.
_LONGEST_COMMIT = timedelta(minutes=1)
#: Services accept a token for a little longer than it is valid, since clocks differ.
_CLOCK_SKEW = timedelta(minutes=1)


class AuthService(AuthServiceServicer):
    """Manages sessions, and publishes the keys of their access tokens."""

    def __init__(
        self,
        db: Database,
        passwords: Passwords,
        signing_keys: SigningKeys,
        limits: SessionLimits,
        resets: PasswordResets,
    ) -> None:
        """Sign access tokens with `signing_keys`; sessions last as long as `limits` allow."""
        self.db = db
        self.passwords = passwords
        self.signing_keys = signing_keys
        self.limits = limits
        self.resets = resets

    async def Login(self, request: pb.LoginRequest, context: Context) -> pb.Tokens:
        email = domain.normalize_email(request.email)
        client = LoginClient.of(email, calling_network(), request.device_token)
        account = await self._count_attempt(email, client)
        password_hash = account.password_hash if account else None
        verified = await self.passwords.verify(request.password, password_hash)
        if account is None or password_hash is None or not verified:
            raise BadCredentials
        outdated = self.passwords.is_outdated(password_hash)
        new_hash = await self.passwords.hash(request.password) if outdated else None
        device_token = request.device_token or new_token()
        async with self.db.transaction() as tx:
            account = await store.lock_account(tx, account.id)  # a role cannot be lost between here and the session
            if account.password_hash != password_hash:
                raise BadCredentials  # the password was changed during this login
            client = LoginClient.of(email, calling_network(), device_token)
            await store_logins.delete_throttles(tx, [*client.keys, client.by_email])
            await store_logins.insert_clients(tx, client.keys)
            if new_hash:
                await store.update_password_hash(tx, account.id, new_hash)
            return await self._begin_session(tx, account, device_token)

    async def RefreshToken(self, request: pb.RefreshTokenRequest, context: Context) -> pb.Tokens:
        token = request.refresh_token
        async with self.db.transaction() as tx:
            session = await store_sessions.lock_session_of_token(tx, token)
            if session is None:
                raise RefreshTokenInvalid
            now = await current_time(tx)
            successor = await self._successor(tx, session, token, now)
            account = await store.read_account(tx, session.user_id)
        if successor is None:  # the end of the session is committed by now
            audit.warning("authn_token_reuse", extra={"user": account.id, "session": session.id})
            raise TokenReused
        return self._tokens(account, session.id, successor, now)

    async def Logout(self, request: pb.LogoutRequest, context: Context) -> Empty:
        user = current_user()
        async with self.db.transaction() as tx:
            if request.all_sessions:
                await store_sessions.end_sessions(tx, user.id, SessionEndReason.SIGNED_OUT)
            else:
                await store_sessions.end_session(tx, user.session_id, SessionEndReason.SIGNED_OUT)
        return Empty()

    async def ChangePassword(self, request: pb.ChangePasswordRequest, context: Context) -> Empty:
        async with self.db.connection() as tx:
            before = await current_account(tx)
        check_password(request.new_password, before.email)
        if not await self.passwords.verify(request.current_password, before.password_hash):
            raise BadCredentials
        new_hash = await self.passwords.hash(request.new_password)
        async with self.db.transaction() as tx:
            account = await store.lock_account(tx, before.id)
            if account.password_hash != before.password_hash:
                raise BadCredentials  # it was changed at the same time
            await store.update_password_hash(tx, account.id, new_hash)
            session_id = current_user().session_id
            await store_sessions.end_other_sessions(tx, account.id, session_id, SessionEndReason.PASSWORD_CHANGED)
            await outbox.add(tx, converters.user_password_changed_event(account))
        return Empty()

    async def RequestPasswordReset(self, request: pb.RequestPasswordResetRequest, context: Context) -> Empty:
        await self.resets.request(domain.normalize_email(request.email))
        return Empty()

    async def ResetPassword(self, request: pb.ResetPasswordRequest, context: Context) -> Empty:
        email = domain.normalize_email(request.email)
        check_password(request.new_password, email)
        user_id = await self.resets.check_code(email, request.code)
        new_hash = await self.passwords.hash(request.new_password)
        async with self.db.transaction() as tx:
            await self.resets.set_password(tx, user_id, email, request.code, new_hash)
        return Empty()

    async def GetJwks(self, request: pb.GetJwksRequest, context: Context) -> pb.JsonWebKeySet:
        return pb.JsonWebKeySet(keys=[pb.JsonWebKey(**key) for key in self.signing_keys.public_keys()])

    async def WatchRevocations(
        self, request: pb.WatchRevocationsRequest, context: Context
    ) -> AsyncIterator[pb.WatchRevocationsResponse]:
        validity = self.signing_keys.policy.lifetime + _CLOCK_SKEW
        known: Mapping[str, datetime] = {}
        read_time = time.monotonic() - validity.total_seconds()
        async with aclosing(self.db.change_feed.subscribe([store_sessions.REVOCATIONS])) as changes:
            async for _ in changes:
                now = time.monotonic()
                within = min(validity, _LONGEST_COMMIT + timedelta(seconds=now - read_time))
                async with self.db.connection() as tx:
                    ended = await store_sessions.list_ended_sessions(tx, within)
                new = {session_id: end + validity for session_id, end in ended.items() if session_id not in known}
                yield converters.revocations_to_proto(new)
                known, read_time = ended, now

    async def _count_attempt(self, email: str, client: LoginClient) -> Account | None:
        """Count an attempt to log in, and return the account if there is one; raises LoginThrottled."""
        async with self.db.transaction() as tx:
            limits = client.limits(await store_logins.list_known_clients(tx, client.keys))
            throttles = await store_logins.lock_throttles(tx, limits.keys())
            now = await current_time(tx)
            for key, free in limits.items():
                await store_logins.update_throttle(tx, key, throttles[key].attempted(now, free))
            return await store.find_account(tx, email)

    async def _begin_session(self, tx: Transaction, account: Account, device_token: str) -> pb.Tokens:
        now = await current_time(tx)
        expire_time = self.limits.expire_time(now, now)
        session = Session(id=uuid.uuid4().hex, user_id=account.id, create_time=now, expire_time=expire_time)
        token = new_token_of(new_token())
        await store_sessions.insert_session(tx, session, token)
        tokens = self._tokens(account, session.id, token, now)
        tokens.device_token = device_token
        return tokens

    async def _successor(self, tx: Transaction, session: Session, token: str, now: datetime) -> str | None:
        """Return the successor of a refresh token; end the session and return None when the token was reused."""
        stored = await store_sessions.read_token(tx, token)
        match domain_sessions.refresh(session, stored, now):
            case RefreshResult.ROTATE:
                return await self._rotate(tx, session, token, now)
            case RefreshResult.REPEAT:
                assert stored is not None, "a deleted token is REUSED"
                assert stored.successor_ciphertext is not None, "the successor is stored during the grace period"
                return decrypt(key_from_token(token), stored.successor_ciphertext, session.id).decode()
            case RefreshResult.REUSED:
                await store_sessions.end_session(tx, session.id, SessionEndReason.TOKEN_REUSED)
                return None

    async def _rotate(self, tx: Transaction, session: Session, token: str, now: datetime) -> str:
        """Return the new successor of a live token, stored encrypted with a key derived from the token."""
        family = family_of(token)
        successor = new_token_of(family) if family else new_token()
        ciphertext = encrypt(key_from_token(token), successor.encode(), session.id)
        extended = replace(session, expire_time=self.limits.expire_time(session.create_time, now))
        await store_sessions.rotate_token(tx, extended, token, successor, ciphertext)
        return successor

    def _tokens(self, account: Account, session_id: str, refresh_token: str, now: datetime) -> pb.Tokens:
        return pb.Tokens(
            access_token=self.signing_keys.sign(account.id, session_id, account.roles, now),
            refresh_token=refresh_token,
            token_type="Bearer",  # noqa: S106  no secret
            expires_in=int(self.signing_keys.policy.lifetime.total_seconds()),
        )
