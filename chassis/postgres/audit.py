"""The audit log: a row for each privileged change, written in the transaction of the change, in a chain of hashes.

The contract marks the privileged RPCs. The database refuses to change or delete rows, and `shopmesh verify` checks the
chain; the log line of the call names the row and its hash, so that rows which vanish from the end are missed as well.
"""

import json
from typing import Any

from chassis.context import Call
from chassis.telemetry import trace_id

_INSERT = """
INSERT INTO audit (method, user_id, caller, trace_id, outcome, request) VALUES ($1, $2, $3, $4, $5, $6)
RETURNING audit_id, encode(hash, 'hex') AS hash"""


async def record(tx: Any, call: Call | None) -> dict[str, Any] | None:
    """Record a call in its change's transaction, if it is privileged and new; return the id and the hash of its row.

    Called at the end of a transaction: until its commit, other privileged changes of the service wait here.
    """
    if call is None or call.audit is None or call.audit.row:
        return None
    row = await tx.fetchrow(
        _INSERT,
        call.method,
        call.user.id if call.user else "",
        call.caller,
        trace_id(call.traceparent),
        call.audit.outcome,
        json.dumps(call.audit.request),
    )
    return dict(row)
