"""The chassis: what every service stands on. Services import from here, or from a module named in its docstring."""

from chassis import outbox
from chassis.app import App, run
from chassis.cache import Cache
from chassis.consumer import Handler
from chassis.context import Context, User, current_call, current_user
from chassis.db import Database, Queries, Record, Transaction
from chassis.errors import OutcomeUnknown
from chassis.idempotency import answered, once
from chassis.lane import Batch, Lane, VersionConflict
from chassis.settings import Settings
from chassis.telemetry import traced
from chassis.times import timestamp

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
    "answered",
    "current_call",
    "current_user",
    "once",
    "outbox",
    "run",
    "timestamp",
    "traced",
]
