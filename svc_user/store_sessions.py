"""Reads and writes sessions and their refresh tokens as domain objects."""

from datetime import datetime, timedelta

from chassis import Transaction
from chassis.postgres.change_feed import CHANNEL
from svc_user.crypto import digest, family_of
from svc_user.domain_sessions import GRACE_PERIOD, RefreshToken, Session, SessionEndReason
from svc_user.store import sql

_ERASE_BATCH = 1_000
#: The key of the change feed that the end of any session notifies.
REVOCATIONS = "revocations"


async def insert_session(tx: Transaction, session: Session, token: str) -> None:
    """Insert a session with its first refresh token."""
    family_digest = digest(family_of(token))
    times = session.create_time, session.expire_time
    await tx.execute(sql.insert_session, session.id, session.user_id, *times, family_digest)
    await tx.execute(sql.insert_token, digest(token), session.id)


async def lock_session_of_token(tx: Transaction, token: str) -> Session | None:
    """Return the session of a refresh token, also of a deleted one, locked until this transaction ends.

    None for an unknown token.
    """
    row = await tx.fetchrow(sql.lock_session_of_token, digest(token))
    if row is None and family_of(token):
        row = await tx.fetchrow(sql.lock_session_of_family, digest(family_of(token)))
    if row is None:
        return None
    return Session(
        id=row["session_id"],
        user_id=row["user_id"],
        create_time=row["create_time"],
        expire_time=row["expire_time"],
        ended=row["end_time"] is not None,
    )


async def read_token(tx: Transaction, token: str) -> RefreshToken | None:
    """Return a refresh token whose session is locked; None for one whose successor was rotated and that was deleted."""
    row = await tx.fetchrow(sql.read_token, digest(token))
    if row is None:
        return None
    return RefreshToken(
        rotate_time=row["rotate_time"],
        successor_ciphertext=row["sealed_successor"],
        successor_rotated=row["successor_rotated"],
    )


async def rotate_token(
    tx: Transaction, session: Session, token: str, successor: str, successor_ciphertext: bytes
) -> None:
    """Replace a session's live token, delete its predecessors, and write the session's new expire time."""
    generations = [digest(token), digest(successor)]
    await tx.execute(sql.rotate_token, *generations, successor_ciphertext)
    await tx.execute(sql.insert_token, digest(successor), session.id)
    await tx.execute(sql.delete_older_tokens, session.id, generations)
    await tx.execute(sql.extend_session, session.id, session.expire_time)


async def end_session(tx: Transaction, session_id: str, reason: SessionEndReason) -> None:
    """End a session, unless it has ended already."""
    await tx.execute(sql.end_session, session_id, reason.name, CHANNEL, REVOCATIONS)


async def end_sessions(tx: Transaction, user_id: str, reason: SessionEndReason) -> None:
    """End all sessions of a user."""
    await tx.execute(sql.end_sessions, user_id, reason.name, CHANNEL, REVOCATIONS)


async def end_other_sessions(tx: Transaction, user_id: str, session_id: str, reason: SessionEndReason) -> None:
    """End all sessions of a user but one."""
    await tx.execute(sql.end_other_sessions, user_id, session_id, reason.name, CHANNEL, REVOCATIONS)


async def list_ended_sessions(tx: Transaction, within: timedelta) -> dict[str, datetime]:
    """Return the end times of the sessions that ended within an interval, by session."""
    return {row["session_id"]: row["end_time"] for row in await tx.fetch(sql.list_ended_sessions, within)}


async def erase_successors(tx: Transaction) -> bool:
    """Erase encrypted successors whose grace period is over, at most a batch; return whether there may be more."""
    done = await tx.execute(sql.erase_successors, GRACE_PERIOD, _ERASE_BATCH)
    return done == f"UPDATE {_ERASE_BATCH}"
