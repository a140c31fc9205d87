"""The conventions of the code: every service has the same files, none is large, and each imports only what it may."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.services import SERVICES

ROOT = Path(__file__).parents[2]
CODE = ("chassis", "edge_gateway", "mesh", *SERVICES)

FILES = {
    "README.md",
    "__init__.py",
    "__main__.py",
    "settings.py",
    "service.py",
    "converters.py",
    "domain.py",
    "store.py",
    "queries.sql",
}
#: Lines that a file may have. Generous: what nears them wants to be two.
BUDGETS = {"__main__.py": 90, "settings.py": 120, "README.md": 120, "queries.sql": 700}
FILE_BUDGET = 340
FUNCTION_BUDGET = 60
FORBIDDEN_WORDS = {"utils", "util", "helpers", "helper", "common", "base", "manager", "impl", "misc", "core", "lib"}

#: Of a service, from the highest layer down: how the names of its modules begin.
LAYERS = (("__main__",), ("service", "events"), ("store",), ("domain",))
ONLY_IN_THE_CHASSIS = {"aiokafka", "asyncpg", "opentelemetry", "redis"}

every_service = pytest.mark.parametrize("service", SERVICES)
every_package = pytest.mark.parametrize("package", CODE)
chassis_and_every_service = pytest.mark.parametrize("package", ["chassis", *SERVICES])


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


@every_service
def test_a_service_has_the_files_of_every_service(service: str) -> None:
    present = {path.name for path in (ROOT / service).iterdir()}
    assert FILES - present == set()
    assert (ROOT / service / "migrations").is_dir()


@every_service
def test_a_service_has_no_sub_packages(service: str) -> None:
    """A service is split by resource, never by layer into folders."""
    folders = {path.name for path in (ROOT / service).iterdir() if path.is_dir()}
    assert folders - {"migrations", "__pycache__"} == set()


@chassis_and_every_service
def test_no_file_is_too_long_to_read(package: str) -> None:
    files = [*modules(package), *(ROOT / package).glob("queries.sql"), *(ROOT / package).glob("README.md")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text("utf-8").splitlines()) for path in files}
    assert {name: n for name, n in lengths.items() if n > BUDGETS.get(Path(name).name, FILE_BUDGET)} == {}


@chassis_and_every_service
def test_no_function_is_too_long_to_read(package: str) -> None:
    long = {
        f"{path.relative_to(ROOT)}:{node.name}": length
        for path in modules(package)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (length := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_BUDGET
    }
    assert long == {}


@every_package
def test_no_module_or_class_has_a_meaningless_name(package: str) -> None:
    names = [path.stem for path in modules(package)]
    assert [name for name in names if FORBIDDEN_WORDS & set(name.split("_"))] == []
    classes = [
        node.name for path in modules(package) for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)
    ]
    assert [name for name in classes if re.match(r"Abstract|I[A-Z][a-z]|Base[A-Z]", name)] == []
    assert [name for name in classes if re.search(r"(Manager|Helper|Impl|Utils?)$", name)] == []


@every_package
def test_every_module_has_a_short_docstring(package: str) -> None:
    docstrings = {path: ast.get_docstring(tree(path)) for path in modules(package) if path.read_text("utf-8").strip()}
    assert [str(path) for path, text in docstrings.items() if not text] == []
    assert [str(path) for path, text in docstrings.items() if text and len(text.splitlines()) > 14] == []


@every_service
def test_only_the_chassis_reads_the_environment(service: str) -> None:
    assert [path.name for path in modules(service) if re.search(r"\bos\.environ\b|\bgetenv\b", path.read_text())] == []


@every_service
def test_domain_modules_import_the_standard_library_chassis_domain_and_their_own_errors_alone(service: str) -> None:
    domain = service.removeprefix("svc_")
    allowed = re.compile(rf"shop\.errors|shop\.{domain}\.v1\.{domain}_errors|{service}\.domain\w*|chassis\.domain\.\w+")
    foreign = [
        name
        for path in (ROOT / service).glob("domain*.py")
        for name in imports(tree(path))
        if name.partition(".")[0] not in sys.stdlib_module_names and not allowed.fullmatch(name)
    ]
    assert foreign == []


@every_service
def test_domain_modules_have_no_clock_and_do_not_await(service: str) -> None:
    for path in (ROOT / service).glob("domain*.py"):
        nodes = list(ast.walk(tree(path)))
        assert not any(isinstance(node, ast.AsyncFunctionDef | ast.Await) for node in nodes)
        called = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
        assert not {name for name in called if re.search(r"\.(now|utcnow|today)$|^time\.(time|monotonic)$", name)}


@every_service
def test_a_service_imports_of_ours_only_itself_the_chassis_and_generated_code(service: str) -> None:
    """The chassis alone knows the database driver, the bus and telemetry."""
    others = {*CODE, *ONLY_IN_THE_CHASSIS} - {service, "chassis"}
    assert [
        (path.name, name)
        for path in modules(service)
        for name in imports(tree(path))
        if name.partition(".")[0] in others
    ] == []


@pytest.mark.parametrize("package", ["chassis", "edge_gateway", "mesh"])
def test_nothing_outside_of_a_service_imports_it(package: str) -> None:
    """The stack runs services as processes and reads their settings by name, so that no list names them."""
    names = {name.partition(".")[0] for path in modules(package) for name in imports(tree(path))}
    assert names & set(SERVICES) == set()


@every_service
def test_handlers_are_a_layer_over_the_store_over_the_domain(service: str) -> None:
    """A module of a lower layer reaches none of a higher one, directly or through others."""
    graph = {
        f"{service}.{path.stem}": {name for name in imports(tree(path)) if name.startswith(f"{service}.")}
        for path in modules(service)
    }
    layers = [{name for name in graph if name.partition(".")[2].startswith(layer)} for layer in LAYERS]
    assert all(layer for layer in layers)
    assert [
        (lower, higher)
        for place, layer in enumerate(layers)
        for lower in layer
        for higher in reachable(graph, lower) & set().union(*layers[:place])
    ] == []


def test_a_breach_of_the_layers_through_another_module_is_found() -> None:
    graph = {"store": {"rows"}, "rows": {"service"}, "service": {"store"}}
    assert reachable(graph, "store") == {"rows", "service", "store"}


def reachable(graph: dict[str, set[str]], start: str) -> set[str]:
    """Return what `start` imports, and what that imports in turn."""
    found: set[str] = set()
    waiting = [start]
    while waiting:
        new = graph.get(waiting.pop(), set()) - found
        found |= new
        waiting += new
    return found


def imports(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from names if node.module in (*SERVICES, "shop") else [node.module]


def test_the_import_rules_hold() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@every_service
def test_handlers_have_no_closures_over_their_results(service: str) -> None:
    """A change is a handler with its transaction (`@transactional`); its result is what it returns."""
    nodes = [(path.name, node) for path in modules(service) for node in ast.walk(tree(path))]
    assert [(name, node.lineno) for name, node in nodes if isinstance(node, ast.Nonlocal)] == []
    assert [
        (name, inner.name)
        for name, node in nodes
        if isinstance(node, ast.AsyncFunctionDef)
        for inner in ast.walk(node)
        if isinstance(inner, ast.AsyncFunctionDef) and inner is not node
    ] == []


@every_service
def test_a_servicer_implements_one_grpc_service(service: str) -> None:
    """A second resource is a second gRPC service, not a mixin."""
    classes = [node for path in modules(service) for node in ast.walk(tree(path)) if isinstance(node, ast.ClassDef)]
    assert [node.name for node in classes if re.search(r"Rpcs$|Mixin$", node.name)] == []
    servicers = [node for node in classes if any(ast.unparse(base).endswith("Servicer") for base in node.bases)]
    assert servicers
    assert [node.name for node in servicers if len(node.bases) != 1] == []
