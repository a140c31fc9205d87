"""Every row of the edge's contract, over real HTTP with a real gRPC server."""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.edge.client import fetch
from tests.integration.edge.cases import bodies, failures, headers, json_in, json_out, query, routing, streams
from tests.integration.edge.cases.case import Case

CASES = [
    case for part in (routing, bodies, query, json_in, json_out, failures, headers, streams) for case in part.CASES
]


@pytest.mark.parametrize("case", [pytest.param(case, id=case.id) for case in CASES])
def test_contract(case: Case, edge_port: int, other_edge_port: int) -> None:
    port = other_edge_port if case.other else edge_port
    answer = fetch(port, case.method, case.path, case.body, list(case.headers))
    assert answer.status == case.status, answer.body[:500]
    assert answer.headers["x-request-id"]
    if case.status >= 400 and case.method != "HEAD" and "status" not in (case.holds or ()):
        assert answer.json["message"]
    if case.field is not None:
        assert answer.violations[:1] == [case.field], answer.body[:500]
    if case.holds is not None:
        _holds(answer.json, case.holds)
    if case.check is not None:
        assert case.check(answer) is not False, answer.body[:500]


def _holds(found: Any, expected: Any) -> None:
    if isinstance(expected, dict):
        assert {key: found.get(key, "<absent>") for key in expected} == expected
    else:
        assert found == expected


def test_every_case_has_a_unique_name() -> None:
    names = [case.id for case in CASES]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)


def test_every_row_of_the_contract_has_a_case() -> None:
    named = {row for case in CASES for row in re.findall(r"C\d+", case.id)}
    # Rejected at the start, or disconnected before the response: not a request with a reply, so not in this table.
    for module, rows in (("test_process.py", {"C18", "C19"}), ("test_http_streams.py", {"C58"})):
        text = Path(__file__).with_name(module).read_text()
        named |= {row for row in rows if f'"{row}-' in text}
    assert {f"C{number}" for number in range(1, 73)} - named == set()
