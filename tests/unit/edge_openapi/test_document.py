"""The OpenAPI document is valid, matches the edge's behaviour, and is deterministic."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator, validate

from edge_gateway.errors import http_status
from edge_gateway.json.protojson import JsonCodec, JsonFormat
from edge_gateway.openapi.__main__ import main
from edge_gateway.routing.field_types import field_element
from edge_gateway.settings import Settings
from tests.unit.edge_openapi.conftest import ROOT, document_of, routes_of

Json = dict[str, Any]


def operations(document: Json) -> Iterator[tuple[str, str, Json]]:
    for path, item in document["paths"].items():
        for method, operation in item.items():
            if not method.startswith("x-"):
                yield method, path, operation


def resolved(document: Json, node: Json) -> Json:
    while "$ref" in node:
        place: Any = document
        for step in node["$ref"].removeprefix("#/").split("/"):
            place = place[step]
        node = place
    return node


def check(document: Json, schema: Json, value: Any) -> None:
    """Return a validator that checks formats too, by JSON Schema's definitions."""
    whole = {**schema, "components": document["components"]}
    jsonschema_rs.Draft202012Validator(whole, validate_formats=True).validate(value)


@pytest.mark.parametrize("image", ["shop_image", "library_image", "rules_image"])
def test_the_document_is_valid_openapi_and_every_reference_resolves(image: str, request: pytest.FixtureRequest) -> None:
    document = document_of(request.getfixturevalue(image))

    validate(document, cls=OpenAPIV31SpecValidator)
    found = re.findall(r'"\$ref": "([^"]+)"', json.dumps(document))
    assert found
    for reference in set(found):
        assert resolved(document, {"$ref": reference})


@pytest.mark.parametrize("image", ["shop_image", "library_image", "rules_image"])
def test_every_component_is_used(image: str, request: pytest.FixtureRequest) -> None:
    document = document_of(request.getfixturevalue(image))

    used = set(re.findall(r'"#/components/schemas/([^"]+)"', json.dumps(document)))
    assert set(document["components"]["schemas"]) == used
    used = set(re.findall(r'"#/components/responses/([^"]+)"', json.dumps(document)))
    assert set(document["components"]["responses"]) == used


def test_the_document_is_deterministic_and_equals_the_one_in_docs(shop_image: bytes, tmp_path: Path) -> None:
    out = tmp_path / "openapi.json"

    assert main(["--descriptor-set", str(ROOT / "gen" / "shop" / "shop.binpb"), "-o", str(out)]) == 0
    assert json.loads(out.read_text("utf-8")) == document_of(shop_image)
    assert out.read_text("utf-8") == (ROOT / "docs" / "openapi.json").read_text("utf-8"), "run `make gen`"


def test_an_unreadable_descriptor_set_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = tmp_path / "bad.binpb"
    bad.write_bytes(b"\xff\xff")

    assert main(["--descriptor-set", str(bad), "-o", str(tmp_path / "out.json")]) == 1
    assert "not a FileDescriptorSet" in capsys.readouterr().err


@pytest.mark.parametrize("image", ["shop_image", "library_image", "rules_image"])
def test_every_route_has_its_operation(image: str, request: pytest.FixtureRequest) -> None:
    _, routes = routes_of(request.getfixturevalue(image), Settings())
    document = document_of(request.getfixturevalue(image))

    ids = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(ids)) == len(ids)
    for rule in routes.rules:
        shape = re.sub(r"\{[^}]*\}", "{}", rule.template.text)
        if "=" in rule.template.text or rule.method == "*":
            continue
        assert any(
            method == rule.method.lower() and re.sub(r"\{[^}]*\}", "{}", path) == shape
            and operation["x-grpc-method"] == rule.rpc.path
            for method, path, operation in operations(document) if "x-grpc-method" in operation
        ) or rule.method == "PURGE", rule.template.text  # fmt: skip


@pytest.mark.parametrize("image", ["shop_image", "library_image", "rules_image"])
def test_path_parameters_are_those_of_the_path(image: str, request: pytest.FixtureRequest) -> None:
    for _, path, operation in operations(document_of(request.getfixturevalue(image))):
        named = [it["name"] for it in operation.get("parameters", ()) if it["in"] == "path"]
        assert named == re.findall(r"\{([^}]*)\}", path)
        assert all(it.get("required") for it in operation.get("parameters", ()) if it["in"] == "path")


@pytest.mark.parametrize("image", ["shop_image", "library_image", "rules_image"])
def test_every_example_fits_its_schema(image: str, request: pytest.FixtureRequest) -> None:
    document = document_of(request.getfixturevalue(image))
    count = 0
    for _, _, operation in operations(document):
        for parameter in operation.get("parameters", ()):
            if "example" in parameter:
                check(document, parameter["schema"], parameter["example"])
                count += 1
        bodies = [operation.get("requestBody", {}), operation["responses"]["200"]]
        for content in (content for body in bodies for content in body.get("content", {}).values()):
            if "example" in content:
                check(document, content["schema"], content["example"])
                count += 1
    for example in document["components"]["examples"].values():
        check(document, {"$ref": "#/components/schemas/Status"}, example["value"])
    assert count > 10


def test_a_field_and_an_element_of_a_list_have_the_example_that_the_proto_gives(shop: Json) -> None:
    found = {it["operationId"]: it for _, _, it in operations(shop)}
    parameter = found["InventoryService_WatchAvailability"]["parameters"][0]
    assert parameter["schema"]["items"]["examples"] == parameter["example"] == ["BEANS-NAN-VALLEY-250"]
    order = found["OrderService_CreateOrder"]["requestBody"]["content"]["application/json"]["example"]
    assert order["paymentMethodToken"] == "tok_ok"
    assert order["lines"] == [{"sku": "BEANS-NAN-VALLEY-250", "quantity": 1}]


def test_every_reply_that_the_codec_writes_fits_its_schema(shop_image: bytes, shop: Json) -> None:
    registry, routes = routes_of(shop_image, Settings())
    codec = JsonCodec(registry)
    count = 0
    for rule in routes.rules:
        if rule.raw_response or rule.rpc.output.type_name.startswith("google."):
            continue
        schema = {"$ref": f"#/components/schemas/{rule.rpc.output.name}"}
        for message in (rule.rpc.output.type(), filled(rule.rpc.output, 4)):
            check(shop, schema, codec.to_value(message, JsonFormat()))
            count += 1
    assert count > 50


def filled(desc: Any, depth: int) -> Any:
    """Return a message with every field set."""
    message = desc.type()
    for field in desc.fields:
        element = field_element(field)
        if hasattr(element, "fields"):
            value: Any = filled(element, depth - 1) if depth else element.type()
        elif hasattr(element, "values"):
            value = element.type(element.values[-1].number)
        else:
            texts = {"STRING": "text", "BYTES": b"bytes", "BOOL": True, "DOUBLE": 1.5, "FLOAT": 1.5}
            value = texts.get(element.name, 7)
        kind = type(field.value).__name__
        if kind == "DescFieldValueList":
            message[field].append(value)
        elif kind == "DescFieldValueMap":
            message[field]["key"] = value
        else:
            message[field] = value
    return message


def test_creating_getting_and_cancelling_an_order_are_linked(shop: Json) -> None:
    by_id = {operation["operationId"]: (path, operation) for _, path, operation in operations(shop)}
    links = by_id["OrderService_CreateOrder"][1]["responses"]["200"]["links"]

    assert links["GetOrder"] == {
        "operationId": "OrderService_GetOrder",
        "parameters": {"orderId": "$response.body#/orderId"},
    }
    assert "CancelOrder" in links
    assert "CancelOrder" in by_id["OrderService_GetOrder"][1]["responses"]["200"]["links"]
    assert "GetOrder" in by_id["SagaService_GetSaga"][1]["responses"]["200"]["links"]
    listed = by_id["OrderService_ListOrders"][1]["responses"]["200"]["links"]["GetOrder"]
    assert listed["parameters"] == {"orderId": "$response.body#/orders/0/orderId"}


def test_every_link_names_an_operation_and_a_parameter_of_it(shop: Json) -> None:
    parameters = {
        operation["operationId"]: {it["name"] for it in operation.get("parameters", ()) if it["in"] == "path"}
        for _, _, operation in operations(shop)
    }
    count = 0
    for _, _, operation in operations(shop):
        for link in operation["responses"]["200"].get("links", {}).values():
            assert set(link["parameters"]) == parameters[link["operationId"]]
            count += 1
    assert count > 40


def test_access_is_described(shop: Json) -> None:
    by_id = {operation["operationId"]: operation for _, _, operation in operations(shop)}

    assert by_id["CatalogService_GetProduct"]["security"] == []
    assert by_id["OrderService_CreateOrder"]["security"] == [{"bearer": []}]
    assert "x-roles" not in by_id["OrderService_CreateOrder"]
    assert by_id["SagaService_RetrySaga"]["x-roles"] == ["admin"]
    assert "`admin`" in by_id["SagaService_RetrySaga"]["description"]
    assert shop["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"


def test_rate_limits_and_timeouts_are_described(shop: Json) -> None:
    (login,) = [it for _, _, it in operations(shop) if it["operationId"] == "AuthService_Login"]

    assert login["x-rate-limit"]["seconds"] == 60.0
    assert f"At most {login['x-rate-limit']['requests']} calls" in login["description"]
    assert set(login["responses"]["200"]["headers"]) == {"RateLimit", "RateLimit-Policy"}
    rejected = resolved(shop, login["responses"]["429"])
    assert set(rejected["headers"]) == {"Retry-After", "RateLimit", "RateLimit-Policy"}
    assert "RATE_LIMITED" in rejected["content"]["application/json"]["examples"]
    assert login["x-timeout-seconds"] > 0


def test_the_reasons_of_a_method_are_its_services_and_the_applicable_ones_of_the_chassis(shop: Json) -> None:
    by_id = {operation["operationId"]: operation for _, _, operation in operations(shop)}

    def reasons(operation_id: str) -> dict[str, set[str]]:
        found = {}
        for status, response in by_id[operation_id]["responses"].items():
            content = resolved(shop, response).get("content", {}).get("application/json", {})
            found[status] = set(content.get("examples", ())) if status not in ("200", "default") else set()
        return found

    create, get = reasons("OrderService_CreateOrder"), reasons("OrderService_GetOrder")
    assert "SKU_NOT_FOUND" in create["404"]
    assert {"PRICE_CHANGED", "INVALID_REQUEST", "INVALID_ARGUMENT"} <= create["400"]
    assert create["422"] == {"IDEMPOTENCY_KEY_REUSED"}
    assert "OPERATION_IN_FLIGHT" in create["409"]
    assert "422" not in get
    assert "OPERATION_IN_FLIGHT" not in get.get("409", ())
    assert create["401"] == {"TOKEN_MISSING", "TOKEN_INVALID"}
    assert "TOKEN_MISSING" not in reasons("CatalogService_GetProduct")["401"]
    assert reasons("SagaService_RetrySaga")["403"] == {"ROLE_MISSING"}
    assert not any("PRODUCT_NOT_FOUND" in names for names in create.values())


def test_reasons_have_the_status_that_the_edge_gives_them(shop: Json) -> None:
    for _, _, operation in operations(shop):
        for status, response in operation["responses"].items():
            examples = resolved(shop, response).get("content", {}).get("application/json", {}).get("examples", {})
            for name, reference in examples.items():
                value = resolved(shop, reference)["value"]
                assert int(status) in (http_status(value["code"]), 422), name
                assert name == "INVALID_ARGUMENT" or value["details"][0]["reason"] == name


def test_example_errors_have_example_values(shop: Json) -> None:
    value = shop["components"]["examples"]["order.shop.ORDER_NOT_FOUND"]["value"]

    assert value["message"] == "The order order-1 does not exist."
    assert value["details"][0]["domain"] == "order.shop"
    assert value["details"][0]["metadata"] == {"order_id": "order-1"}


def test_streams_are_ndjson_and_server_sent_events(shop: Json) -> None:
    (watch,) = [it for _, _, it in operations(shop) if it["operationId"] == "OrderService_WatchOrder"]

    assert set(watch["responses"]["200"]["content"]) == {"application/x-ndjson", "text/event-stream"}
    assert watch["x-streaming"] == "server_streaming"
    assert "Last-Event-ID" in {it["name"] for it in watch["parameters"]}


def test_reads_with_an_etag_describe_conditional_requests(shop: Json) -> None:
    (get,) = [it for _, _, it in operations(shop) if it["operationId"] == "OrderService_GetOrder"]

    assert "304" in get["responses"]
    assert get["responses"]["200"]["headers"] == {"ETag": {"$ref": "#/components/headers/ETag"}}
    assert "If-None-Match" in {it["name"] for it in get["parameters"]}


@pytest.fixture(scope="session")
def library(library_image: bytes) -> Json:
    return document_of(library_image)


@pytest.mark.parametrize(
    ("operation_id", "path", "fields"),
    [
        ("Library_GetShelf", "/v1/shelves/{name}", {"name": "The `*` of `shelves/*` in `name`."}),
        (
            "Library_GetShelf_2",
            "/v1/two/shelves/{name1}/books/{name2}",
            {
                "name1": "The `*` of `shelves/*/books/*` in `name`.",
                "name2": "The `*` of `shelves/*/books/*` in `name`.",
            },
        ),
        ("Library_GetShelf_3", "/v1/deep/{name}", {"name": "The `**` of `**` in `name`; it may be several segments."}),
        ("Library_CancelShelf", "/v1/shelves/{name}:cancel", {"name": "The `*` of `shelves/*` in `name`."}),
    ],
)
def test_a_template_of_several_segments_has_a_name_for_each_wildcard(
    library: Json, operation_id: str, path: str, fields: dict[str, str]
) -> None:
    (found,) = [(where, it) for _, where, it in operations(library) if it["operationId"] == operation_id]

    assert found[0] == path
    assert {it["name"]: it["description"] for it in found[1]["parameters"] if it["in"] == "path"} == fields


def test_a_body_may_be_any_field_of_the_request(library: Json) -> None:
    bodies = {
        it["operationId"]: it["requestBody"]["content"]["application/json"]["schema"]
        for _, _, it in operations(library)
        if it["operationId"].startswith("Library_PutValue")
    }

    assert bodies["Library_PutValue"] == {"type": "string"}
    assert bodies["Library_PutValue_2"] == {"type": "array", "items": {"type": "string"}}
    assert bodies["Library_PutValue_3"] == {"type": "array", "items": {"$ref": "#/components/schemas/SubInput"}}


def test_a_reply_may_be_a_field_of_the_message(library: Json) -> None:
    (found,) = [it for _, _, it in operations(library) if it["operationId"] == "Library_ListShelves_2"]

    schema = found["responses"]["200"]["content"]["application/json"]["schema"]
    assert schema == {"type": "array", "items": {"$ref": "#/components/schemas/Shelf"}}


def test_the_access_by_owner_names_the_owner_beside_the_roles(shop: Json) -> None:
    get = shop["paths"]["/v1/orders/{orderId}"]["get"]
    assert "For the owner, and for users with the role `staff` or `admin`." in get["description"]
    assert get["x-roles"] == ["staff", "admin"]
