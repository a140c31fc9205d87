"""What keeps three classes of attacks out: requests to foreign addresses, injection, and changed dependencies."""

import ast
import io
import json
import logging
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FieldDescriptorProto

from chassis.telemetry import JsonFormatter
from mesh.services import SERVICES
from tests.contract.test_protos import FILES

ROOT = Path(__file__).parents[2]
SERVED = ("chassis", "edge_gateway", *SERVICES)
HTTP_CLIENTS = {"httpx", "aiohttp", "requests", "urllib3", "http.client", "urllib.request", "niquests", "pyqwest"}
#: The modules that open HTTP connections, each to addresses of the settings alone and without following redirects.
CONNECTS = {"chassis/external/api.py", "chassis/rpc/auth.py"}
ADDRESS = re.compile(r"(^|_)(ur[li]|href|callback|webhook|endpoint|host|address_of)(_|$)")
RUNS_SQL = {"fetch", "fetchrow", "fetchval", "execute", "executemany", "write"}


def modules(*packages: str) -> Iterator[tuple[str, ast.Module]]:
    for package in packages:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), ast.parse(path.read_text("utf-8"), str(path))


def imported(tree: ast.Module) -> set[str]:
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


def test_only_two_modules_open_http_connections_and_follow_no_redirect() -> None:
    found = {path: tree for path, tree in modules(*SERVED) if imported(tree) & HTTP_CLIENTS}
    assert set(found) == CONNECTS
    for path, tree in found.items():
        redirects = [
            keyword.value.value
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            for keyword in node.keywords
            if keyword.arg == "follow_redirects" and isinstance(keyword.value, ast.Constant)
        ]
        assert redirects, path
        assert not any(redirects), path


def test_no_request_names_an_address_that_a_server_could_be_made_to_call() -> None:
    requests = [message for file in FILES for message in file.message_type if message.name.endswith("Request")]
    texts = [
        f"{message.name}.{field.name}"
        for message in requests
        for field in message.field
        if field.type == FieldDescriptorProto.TYPE_STRING
    ]
    assert "CreateOrderRequest.payment_method_token" in texts
    assert [name for name in texts if ADDRESS.search(name.partition(".")[2])] == []


def is_named_query(node: ast.expr, names: set[str]) -> bool:
    """Return whether an expression is a query of queries.sql, or a variable that only ever holds one."""
    match node:
        case ast.Attribute(value=ast.Name(id="sql")):
            return True
        case ast.IfExp(body=body, orelse=orelse):
            return is_named_query(body, names) and is_named_query(orelse, names)
        case ast.Call(func=ast.Name(id="getattr"), args=[ast.Name(id="sql"), *_]):
            return True  # getattr finds named queries only
        case ast.JoinedStr(values=values):  # a named query with a constant clause
            parts = [part.value for part in values if isinstance(part, ast.FormattedValue)]
            return all(is_named_query(part, names) for part in parts)
        case ast.Name(id=name):
            return name in names
        case _:
            return False


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_executes_named_queries_only_so_that_no_text_becomes_sql(service: str) -> None:
    foreign = []
    for path, tree in modules(service):
        if not Path(path).name.startswith("store"):
            continue
        for function in (node for node in ast.walk(tree) if isinstance(node, ast.AsyncFunctionDef | ast.FunctionDef)):
            parameters = {argument.arg for argument in function.args.args if argument.arg == "query"}
            for node in ast.walk(function):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in RUNS_SQL:
                    query = node.args[0]
                    if not is_named_query(query, parameters):
                        foreign.append(f"{path}:{node.lineno} {ast.unparse(query)}")
    assert foreign == []


@pytest.mark.parametrize("service", SERVICES)
def test_no_other_module_of_a_service_executes_sql(service: str) -> None:
    runs = [
        f"{path}:{node.lineno}"
        for path, tree in modules(service)
        if not Path(path).name.startswith("store")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in RUNS_SQL
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id in ("tx", "connection")
    ]
    assert runs == []


@pytest.mark.parametrize(
    "text", ["a\r\nlevel: forged", "\u2028{}", "${jndi:ldap://x}", "%s %(name)s {0}", "\x1b[2J\x00"]
)
def test_text_of_a_user_stays_inside_its_field_of_one_log_line(text: str) -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter("svc_test"))
    handler.handle(logging.makeLogRecord({"levelno": logging.INFO, "msg": "order placed", "message_of_user": text}))
    (line,) = stream.getvalue().split("\n")[:-1]
    assert not re.search(r"[\x00-\x1f]", line)
    entry = json.loads(line)
    assert (entry["message"], entry["message_of_user"]) == ("order placed", text)


def locked() -> dict[str, str]:
    """Return the block of each requirement of the lock file by its name."""
    text = (ROOT / "requirements.lock").read_text("utf-8")
    blocks = re.split(r"\n(?=\S)", "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#")))
    return {re.split(r"[=\[ ;@]", block.strip(), maxsplit=1)[0].lower(): block for block in blocks if block.strip()}


def test_every_dependency_is_locked_to_one_version_and_its_hashes() -> None:
    blocks = locked()
    unlocked = [
        name for name, block in blocks.items() if not re.match(r"\S+==\S+", block) or "--hash=sha256:" not in block
    ]
    assert unlocked == []
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    groups = [project["project"]["dependencies"], *project["dependency-groups"].values()]
    named = {
        re.split(r"[\[=<>~!; ]", one, maxsplit=1)[0].lower()
        for group in groups
        for one in group
        if isinstance(one, str)
    }
    assert {name.replace("_", "-") for name in named} - {name.replace("_", "-") for name in blocks} == set()


def test_the_environment_is_installed_by_hashes_alone() -> None:
    installs = re.findall(
        r"^.*pip install.*requirements\.lock.*$|^.*--require-hashes.*$",
        (ROOT / "Makefile").read_text("utf-8"),
        re.MULTILINE,
    )
    assert installs
    assert all("--require-hashes" in line for line in installs)
