"""Who may call each RPC, for how long, how often and audited or not, is reviewed: a change of it changes two files."""

import re
from pathlib import Path

from shop.contract import RPCS, Rpc

#: One line for each RPC; spaces around | align the columns and mean nothing.
TABLE = Path(__file__).with_name("reviewed_access.txt")


def line_of(rpc: Rpc) -> str:
    """Return the RPC's line of the table: method, users, callers, timeout, rate limit, audit."""
    users = ", ".join(rpc.roles) or rpc.access.value
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
        for line in TABLE.read_text("utf-8").splitlines()
        if line and not line.startswith("#")
    }
    contract = {line_of(rpc) for rpc in RPCS.values()}
    changes = [f"- {line}" for line in sorted(reviewed - contract)] + [
        f"+ {line}" for line in sorted(contract - reviewed)
    ]
    assert not changes, "\n".join(
        ("The contract differs from its review. Review these lines and change them in", str(TABLE), *changes)
    )
