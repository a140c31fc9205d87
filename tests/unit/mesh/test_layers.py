"""The import rules of the house, run where every test is run."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.services import SERVICES

_RULES = sorted(Path(__file__).parents[3].glob("svc_*/domain*.py"))


def test_the_import_contracts_hold(repository):
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], cwd=repository, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("file", _RULES, ids=lambda file: f"{file.parent.name}/{file.stem}")
def test_rules_import_the_standard_library_and_their_own_errors_alone(file):
    service = file.parent.name
    domain = service.removeprefix("svc_")
    allowed = {f"shop.{domain}.v1.{domain}_errors", "shop.errors"}
    for node in ast.walk(ast.parse(file.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            ours = name.startswith(f"{service}.domain")
            assert name.partition(".")[0] in sys.stdlib_module_names or ours or name in allowed


def test_every_service_has_its_rules(repository):
    assert {file.parent.name for file in _RULES} >= set(SERVICES)
