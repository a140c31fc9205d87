"""Who may call each RPC, for how long, how often and audited or not, is reviewed: a change of it changes two files."""

import re
from pathlib import Path

from shop.contract import RPCS, Access, Rpc

#: A file for each domain with one line for each RPC: method | users | callers | timeout | rate limit | audit. Spaces
#: around | align the columns and mean nothing. Users are public (with or without a token), user (any signed-in user),
#: owner (of the resource; roles after it see everyone's), roles, or workload (no end user; only the calling workload
#: counts). A workload named among the roles needs no end user. The caller * is every workload. Public changes without a
#: limit are webhooks: their signature counts.
TABLES = Path(__file__).with_name("reviewed_access")


def line_of(rpc: Rpc) -> str:
    """Return the RPC's line of the table: method, users, callers, timeout, rate limit, audit."""
    users = ", ".join((*rpc.roles, *rpc.workloads) if rpc.access is Access.ROLES else (rpc.access.value, *rpc.roles))
    timeout = "no timeout" if rpc.timeout is None else f"{rpc.timeout:g} s"
    limit = "no limit"
    if rpc.rate_limit:
        mode = "closed" if rpc.rate_limit.fail_closed else "open"
        limit = f"{rpc.rate_limit.requests} per {rpc.rate_limit.per:g} s, fails {mode}"
    audit = "audited" if rpc.audit else "not audited"
    return " | ".join((f"{rpc.service}/{rpc.method}", users, ", ".join(rpc.callers), timeout, limit, audit))


def test_each_rpc_has_the_access_and_limits_that_were_reviewed() -> None:
    reviewed = {
        re.sub(r"\s*\|\s*", " | ", line.strip())
        for table in TABLES.glob("*.txt")
        for line in table.read_text("utf-8").splitlines()
    }
    contract = {line_of(rpc) for rpc in RPCS.values()}
    changes = [f"- {line}" for line in sorted(reviewed - contract)] + [
        f"+ {line}" for line in sorted(contract - reviewed)
    ]
    assert not changes, "\n".join(
        ("The contract differs from its review. Review these lines and change them in", str(TABLES), *changes)
    )
