"""The Python client that the plugin generates for a domain."""

import ast
import json

import pytest

from mesh.codegen import protoc_gen_shop
from shop.channel import service_config
from shop.contract import RPCS, IdempotencyLevel


@pytest.fixture
def rendered(compiled) -> dict[str, str]:
    return {file.name: file.content for file in protoc_gen_shop.respond(compiled()).file}


@pytest.fixture
def methods(rendered: dict[str, str]) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    module = ast.parse(rendered["shop/toy/v1/toy_client.py"])
    (client,) = [node for node in module.body if isinstance(node, ast.ClassDef)]
    assert (client.name, ast.get_docstring(client)) == ("ToyClient", "Keeps toys.")
    return {node.name: node for node in client.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def keywords(method: ast.FunctionDef | ast.AsyncFunctionDef) -> dict[str, str]:
    """The keyword arguments of a method, with their types and defaults."""
    arguments = method.args
    return {
        name.arg: f"{ast.unparse(name.annotation)}{f' = {ast.unparse(default)}' if default else ''}"
        for name, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    }


def test_a_method_takes_the_fields_of_its_request_and_generates_the_request_id(methods) -> None:
    assert keywords(methods["create_toy"]) == {
        "request_id": "str = ''",
        "toy": "toy_service_pb2.Toy | None = None",
        "timeout": "float | None = None",
    }
    assert ast.unparse(methods["create_toy"].returns) == "toy_service_pb2.Toy"
    assert "request_id=request_id or new_key()" in ast.unparse(methods["create_toy"])
    assert ast.get_docstring(methods["create_toy"]) == "Makes a toy."


def test_a_stream_is_no_coroutine_and_has_no_deadline(methods) -> None:
    assert isinstance(methods["watch_toy"], ast.FunctionDef)
    assert keywords(methods["watch_toy"]) == {"toy_id": "str = ''"}
    assert ast.unparse(methods["watch_toy"].returns) == "AsyncIterator[toy_service_pb2.Toy]"


def test_webhooks_and_what_only_services_may_call_are_left_out(methods, compiled) -> None:
    assert set(methods) == {"__init__", "get_toy", "create_toy", "watch_toy"}

    inside = compiled('access: ACCESS_USER\n      callers: "edge"', 'access: ACCESS_WORKLOAD\n      callers: "svc_toy"')
    text = next(file.content for file in protoc_gen_shop.respond(inside).file if file.name.endswith("toy_client.py"))
    assert "watch_toy" not in text


def test_a_service_with_a_resource_of_its_name_is_an_attribute_in_the_plural(rendered: dict[str, str]) -> None:
    assert "def toys(self) -> ToyClient:" in rendered["shop/client.py"]


SECOND_SERVICE = """// Mends toys.
service RepairShopService {
  // Lists repairs.
  rpc ListRepairShops(GetToyRequest) returns (Toy) {
    option idempotency_level = NO_SIDE_EFFECTS;
    option (shop.options.v1.rpc) = {access: ACCESS_PUBLIC callers: "edge" timeout: {seconds: 1}};
  }
}

"""


def test_a_second_service_of_a_domain_has_a_client_of_its_own(compiled) -> None:
    request = compiled("// Keeps toys.\n", SECOND_SERVICE + "// Keeps toys.\n")
    rendered = {file.name: file.content for file in protoc_gen_shop.respond(request).file}

    assert "class ToyClient:" in rendered["shop/toy/v1/toy_client.py"]
    assert "class RepairShopClient:" in rendered["shop/toy/v1/repair_shop_client.py"]
    assert "def repair_shops(self) -> RepairShopClient:" in rendered["shop/client.py"]
    assert '"shop.toy.v1.RepairShopService": Service(' in rendered["shop/services.py"]


def test_exactly_what_the_contract_lets_be_repeated_is_retried() -> None:
    (config,) = json.loads(service_config())["methodConfig"]

    retried = {f"/{name['service']}/{name['method']}" for name in config["name"]}
    assert retried == {
        path
        for path, rpc in RPCS.items()
        if rpc.idempotency_level is not IdempotencyLevel.UNKNOWN and not rpc.server_streaming
    }
    assert "/shop.user.v1.AuthService/Login" not in retried
    assert config["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
