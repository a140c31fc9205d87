"""Signatures and keys that callers present are compared in constant time, by hmac.compare_digest alone."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    path for package in ("chassis", "edge_gateway", "mesh", "svc_*") for path in ROOT.glob(f"{package}/**/*.py")
)
#: A function that names one of these handles a signature; one with b"authorization" reads a key that a caller presents.
_SENSITIVE = re.compile(r"(^|[_-])(signatures?|digests?|hmac|macs?)([_-]|$)|^b'authorization'$", re.IGNORECASE)
_EQUALITY = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)


def leaking_comparisons(source: str) -> list[str]:
    """Return the comparisons of two computed values by ==, !=, in or not in, in functions that handle a signature."""
    functions = [
        node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    return [
        ast.unparse(node)
        for function in functions
        if any(map(_SENSITIVE.search, _names(function)))
        for node in ast.walk(function)
        if isinstance(node, ast.Compare) and _compares_computed_values(node)
    ]


def _names(function: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for node in ast.walk(function):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name) | ast.arg(arg=name):
                yield name
            case ast.Constant(value=str(text)):
                yield text
            case ast.Constant(value=bytes(text)):
                yield repr(text)


def _compares_computed_values(node: ast.Compare) -> bool:
    operands = (node.left, *node.comparators)
    return any(isinstance(one, _EQUALITY) for one in node.ops) and not any(map(_is_public, operands))


def _is_public(operand: ast.expr) -> bool:
    length = isinstance(operand, ast.Call) and ast.unparse(operand.func) == "len"
    return length or isinstance(operand, ast.Constant)


def test_no_signature_or_key_is_compared_by_an_operator() -> None:
    found = {str(path.relative_to(ROOT)): leaking_comparisons(path.read_text("utf-8")) for path in MODULES}
    assert {module: comparisons for module, comparisons in found.items() if comparisons} == {}


@pytest.mark.parametrize(
    "body",
    [
        "return mine == headers['webhook-signature']",
        "return signature != expected",
        "return any(theirs in expected for theirs in headers['webhook-signature'].split())",
        "return hmac.digest(key, body) == theirs",
        "return headers[b'authorization'] == self._expected",
    ],
)
def test_a_leaking_comparison_is_found(body: str) -> None:
    assert len(leaking_comparisons(f"def verify(self, headers, mine, expected):\n    {body}\n")) == 1


def test_a_comparison_in_constant_time_is_accepted() -> None:
    source = (
        "def verify(signature, mine):\n    return len(signature) == len(mine) and compare_digest(signature, mine)\n"
    )
    assert leaking_comparisons(source) == []
