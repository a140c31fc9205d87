"""docs/request.md names functions and docs/glossary.md modules that exist; the diagrams and conventions are there."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
REQUEST = (ROOT / "docs" / "request.md").read_text("utf-8")
GLOSSARY = (ROOT / "docs" / "glossary.md").read_text("utf-8")
ARCHITECTURE = (ROOT / "docs" / "architecture.md").read_text("utf-8")

#: `path/of/module.py: function` or `path/of/module.py: Class.method`.
FUNCTIONS = sorted(set(re.findall(r"`([\w/]+\.py): ([\w.]+)`", REQUEST)))
ROWS = re.findall(r"^\| \*\*(.+?)\*\* \| .+ \| (.+) \|$", GLOSSARY, re.MULTILINE)


def names(path: Path) -> set[str]:
    """Return the functions, classes and methods of a module."""
    found = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        if isinstance(node, ast.ClassDef):
            methods = (one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef))
            found.update(f"{node.name}.{method.name}" for method in methods)
    return found


@pytest.mark.parametrize(("module", "function"), FUNCTIONS, ids=lambda part: part)
def test_every_function_that_is_named_exists(module: str, function: str) -> None:
    assert function in names(ROOT / module)


def test_three_requests_are_drawn_and_each_step_names_its_function() -> None:
    assert REQUEST.count("sequenceDiagram") == 3
    assert len(FUNCTIONS) >= 25
    steps = re.findall(r"^\| [A-Z].* \| (.+) \|$", REQUEST, re.MULTILINE)
    assert [step for step in steps if not re.search(r"`[\w/]+\.py: [\w.]+`", step)] == []


def test_the_architecture_is_drawn_with_every_service_and_states_its_conventions() -> None:
    services = {path.parent.name for path in ROOT.glob("svc_*/__main__.py")}
    (drawing,) = re.findall(r"```mermaid\n(.+?)```", ARCHITECTURE, re.DOTALL)
    assert {name for name in ("svc_order", "svc_user") if name not in drawing} == set()
    assert set(re.findall(r"svc_[a-z]+", drawing)) <= services
    conventions = ARCHITECTURE.partition("## Conventions")[2]
    assert len(re.findall(r"^\d+\. ", conventions, re.MULTILINE)) >= 10


def test_the_glossary_has_thirty_terms_in_order_each_with_its_module() -> None:
    assert len(ROWS) == 30
    terms = [term for term, _ in ROWS]
    assert terms == sorted(terms)
    places = [place for _, cell in ROWS for place in re.findall(r"`([^`]+)`", cell)]
    assert len(places) >= 30
    assert [place for place in places if not (ROOT / place).exists()] == []
