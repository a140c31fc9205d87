"""What the plugin generates from a valid domain."""

import importlib.util
import pickle
import sys
from pathlib import Path
from types import ModuleType

import pytest

import shop.errors
from mesh.codegen import protoc_gen_shop
from shop.errors import ShopError


@pytest.fixture
def load(compiled, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Import a generated module of the toy domain without registering it."""
    monkeypatch.setattr(shop.errors, "ERRORS", {})

    def load_module(path: str, old: str = "", new: str = "") -> ModuleType:
        rendered = {file.name: file.content for file in protoc_gen_shop.respond(compiled(old, new)).file}
        name = f"generated_{Path(path).stem}"
        source = tmp_path / f"{name}.py"
        source.write_text(rendered[path], "utf-8")
        spec = importlib.util.spec_from_file_location(name, source)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        spec.loader.exec_module(module)
        return module

    return load_module


def test_a_reason_becomes_a_class_whose_keywords_are_its_placeholders(load) -> None:
    errors = load("shop/toy/v1/toy_errors.py")

    error = errors.WrongState(toy_id=7, state="broken")

    assert isinstance(error, ShopError)
    assert str(error) == error.message == 'The toy 7 is broken, "7" is {not} asked.'
    assert error.metadata == {"toy_id": "7", "state": "broken"}
    assert (error.code, error.reason, error.domain, error.http_status) == (9, "WRONG_STATE", "toy.shop", 409)
    assert " ".join(errors.WrongState.__doc__.split()) == (
        'A toy cannot become what was asked. It may be of "another kind | make"'
    )


def test_the_class_of_a_reason_without_placeholders_takes_no_arguments(load) -> None:
    error = load("shop/toy/v1/toy_errors.py").Gone()

    assert (str(error), error.metadata, error.http_status) == ("It is {gone}.", {}, None)


@pytest.mark.parametrize("keywords", [{}, {"toy_id": "7"}, {"toy_id": "7", "state": "x", "more": "y"}])
def test_missing_and_unknown_keywords_are_errors(load, keywords: dict[str, str]) -> None:
    errors = load("shop/toy/v1/toy_errors.py")

    with pytest.raises(TypeError, match="keyword"):
        errors.WrongState(**keywords)


def test_an_error_can_be_pickled(load) -> None:
    error = load("shop/toy/v1/toy_errors.py").WrongState(toy_id="7", state="broken")

    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), copy.message, copy.metadata) == (type(error), error.message, error.metadata)


def test_an_error_is_restored_with_the_metadata_of_another_build(load) -> None:
    errors = load("shop/toy/v1/toy_errors.py")

    error = errors.WrongState.restored("Said by a newer server.", {"wheel": "3"})

    with pytest.raises(errors.WrongState, match="Said by a newer server") as caught:
        raise error
    assert caught.value.metadata == {"wheel": "3"}


def test_imported_classes_are_registered_by_domain_and_reason(load) -> None:
    errors = load("shop/toy/v1/toy_errors.py")

    registered = shop.errors.ERRORS
    assert registered == {("toy.shop", "WRONG_STATE"): errors.WrongState, ("toy.shop", "GONE"): errors.Gone}


def test_the_contract_has_the_options_of_each_method(load) -> None:
    contract = load("shop/contract.py")

    assert list(contract.RPCS) == [
        f"/shop.toy.v1.ToyService/{name}" for name in ("GetToy", "CreateToy", "WatchToy", "ReceiveToy")
    ]
    get, create, watch, receive = contract.RPCS.values()
    assert get == contract.Rpc(
        service="shop.toy.v1.ToyService",
        method="GetToy",
        request_type="shop.toy.v1.GetToyRequest",
        response_type="shop.toy.v1.Toy",
        access=contract.Access.PUBLIC,
        callers=("edge", "svc_toy"),
        timeout=2.5,
        rate_limit=contract.RateLimit(requests=5, per=60.0, fail_closed=True),
        idempotency_level=contract.IdempotencyLevel.NO_SIDE_EFFECTS,
        has_http=True,
    )
    assert (create.access, create.roles, create.audit) == (contract.Access.ROLES, ("admin",), True)
    assert (create.has_request_id, get.has_request_id) == (True, False)
    assert (watch.server_streaming, watch.timeout, watch.has_http) == (True, None, False)
    assert (receive.request_type, receive.access) == ("google.api.HttpBody", contract.Access.PUBLIC)
    assert receive.idempotency_level is contract.IdempotencyLevel.UNKNOWN


def test_every_service_is_listed_with_its_workload_and_generated_module(load) -> None:
    services = load("shop/services.py")

    name = "shop.toy.v1.ToyService"
    row = services.Service(name=name, workload="svc_toy", module="shop.toy.v1.toy_service_pb2_grpc")
    table = services.SERVICES
    assert table == {name: row}


def test_an_rpc_for_any_workload_admits_all_of_them_but_not_the_edge_or_a_caller_without_a_name(load) -> None:
    contract = load("shop/contract.py", 'ACCESS_USER\n      callers: "edge"', 'ACCESS_USER\n      callers: "*"')

    rpc = contract.RPCS["/shop.toy.v1.ToyService/WatchToy"]
    admitted = {name for name in ("svc_toy", "svc_other", "edge", "") if rpc.admits(name)}
    assert admitted == {"svc_toy", "svc_other"}


def test_an_rpc_admits_the_callers_that_it_names_and_no_other(load) -> None:
    rpc = load("shop/contract.py").RPCS["/shop.toy.v1.ToyService/GetToy"]

    assert {name for name in ("svc_toy", "svc_other", "edge", "*", "") if rpc.admits(name)} == {"svc_toy", "edge"}


def test_only_events_have_topics(load) -> None:
    topics = load("shop/topics.py")

    events = topics.EVENTS
    assert events == {"shop.toy.v1.ToyCreated": topics.EventType("shop.toy.v1.Toy", "toy_id")}


def test_a_declared_topic_has_its_consumers_partitions_and_retention(load) -> None:
    topics = load("shop/topics.py", "partitions: 6", 'partitions: 6\n  consumers: ["svc_toy"]')

    assert {"shop.toy.v1.Toy": topics.Topic("shop.toy.v1.Toy", ("svc_toy",), 6, 604800.0)} == topics.TOPICS


def test_the_pages_list_every_reason_and_event(compiled) -> None:
    pages = {file.name: file.content for file in protoc_gen_shop.respond(compiled(parameter="docs")).file}

    assert pages.keys() == {"errors.md", "events.md"}
    assert (
        "| `WRONG_STATE` | `FAILED_PRECONDITION` | 409 "
        '| The toy {toy_id} is {state}, "{toy_id}" is {not} asked. '
        '| A toy cannot become what was asked. It may be of "another kind \\| make" |'
    ) in pages["errors.md"].splitlines()
    assert "| `GONE` | `NOT_FOUND` | 404 | It is {gone}. | Nobody has such a toy. |" in pages["errors.md"].splitlines()
    assert "| `ToyCreated` | `shop.toy.v1.Toy` | `toy_id` |  | A toy was made. |" in pages["events.md"].splitlines()


def test_the_same_protos_give_the_same_files(compiled) -> None:
    request = compiled()

    first, second = (protoc_gen_shop.respond(request).SerializeToString(deterministic=True) for _ in range(2))

    assert first == second
    assert all("DO NOT EDIT" in file.content for file in protoc_gen_shop.respond(request).file if file.content)
