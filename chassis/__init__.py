"""The chassis: the framework of every service. Services import from here, or from a module named in its docstring.

A name is imported when it is first used: what only reads the settings of services, as the local stack does, loads no
server.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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
    from chassis.process import run
    from chassis.rpc.access import owner_filter, require_owner
    from chassis.settings import Settings
    from chassis.telemetry import traced
    from chassis.types.times import timestamp

#: The module of each name.
_MODULES = {
    "App": "chassis.app",
    "Batch": "chassis.postgres.lane",
    "Cache": "chassis.cache",
    "Context": "chassis.context",
    "Database": "chassis.postgres.database",
    "Handler": "chassis.events.consumer",
    "Lane": "chassis.postgres.lane",
    "OutcomeUnknown": "chassis.errors",
    "Queries": "chassis.postgres.database",
    "Record": "chassis.postgres.database",
    "Settings": "chassis.settings",
    "Transaction": "chassis.postgres.database",
    "User": "chassis.context",
    "VersionConflict": "chassis.postgres.lane",
    "Watch": "chassis.postgres.change_feed",
    "WatchPace": "chassis.postgres.change_feed",
    "current_call": "chassis.context",
    "current_time": "chassis.postgres.database",
    "current_user": "chassis.context",
    "idempotent": "chassis.postgres.idempotency",
    "is_replay": "chassis.postgres.idempotency",
    "outbox": "chassis.events",
    "owner_filter": "chassis.rpc.access",
    "require_owner": "chassis.rpc.access",
    "run": "chassis.process",
    "stored_reply": "chassis.postgres.idempotency",
    "timestamp": "chassis.types.times",
    "traced": "chassis.telemetry",
    "transactional": "chassis.postgres.idempotency",
}

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


def __getattr__(name: str) -> Any:
    """Import what a name stands for; raises AttributeError."""
    if name not in _MODULES:
        raise AttributeError(f"the chassis has no {name}")
    module = _MODULES[name]
    # `outbox` is itself a module.
    value = import_module(f"{module}.{name}") if name == "outbox" else getattr(import_module(module), name)
    globals()[name] = value
    return value
