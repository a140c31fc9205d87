"""The chassis: the framework of every service. Services import from here, or from a module named in its docstring."""

from chassis.app import App
from chassis.cache import Cache
from chassis.context import Context, User, current_call, current_user
from chassis.errors import OutcomeUnknown
from chassis.events import outbox
from chassis.events.consumer import Handler
from chassis.postgres.change_feed import Watch, WatchPace
from chassis.postgres.database import Database, Queries, Record, Transaction, current_time
from chassis.postgres.idempotency import idempotent, is_replay, stored_reply, transactional
from chassis.postgres.lane import Batch, Lane, VersionConflict
from chassis.rpc.access import owner_filter, require_owner
from chassis.run import run
from chassis.settings import Settings
from chassis.telemetry import traced
from chassis.types.times import timestamp

__all__ = [
    "App",
    "Batch",
    "Cache",
    "Context",
    "Database",
    "Handler",
    "Lane",
    "OutcomeUnknown",
    "Queries",
    "Record",
    "Settings",
    "Transaction",
    "User",
    "VersionConflict",
    "Watch",
    "WatchPace",
    "current_call",
    "current_time",
    "current_user",
    "idempotent",
    "is_replay",
    "outbox",
    "owner_filter",
    "require_owner",
    "run",
    "stored_reply",
    "timestamp",
    "traced",
    "transactional",
]
