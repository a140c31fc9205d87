"""What the document allows, the edge binds and the rules let pass; tried with requests that schemathesis makes up."""

import importlib
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
import schemathesis
from google.protobuf import descriptor_pool, message_factory
from hypothesis import HealthCheck, Phase, given, settings
from protovalidate import Validator

from edge_gateway.errors import EdgeError
from edge_gateway.json.protojson import JsonCodec, JsonFormat
from edge_gateway.json.transcoder import Transcoder
from edge_gateway.settings import Settings
from tests.unit.edge_openapi.conftest import ROOT, document_of, routes_of

SHOP = document_of((ROOT / "gen" / "shop" / "shop.binpb").read_bytes())
TAGS = [tag["name"] for tag in SHOP["tags"] if tag["name"] != "Edge"]

#: CEL rules of which a part, or all, is beyond JSON Schema; their messages are in the descriptions.
BEYOND = {"slots.where", "slots.span", "slots.cutoff", "slot_rule.span", "product.skus"}


class Served:
    """The part of the edge and of a service that a request meets before its handler."""

    def __init__(self) -> None:
        registry, routes = routes_of((ROOT / "gen" / "shop" / "shop.binpb").read_bytes(), Settings())
        self._router = routes.router
        self._transcoder = Transcoder(JsonCodec(registry), JsonFormat())
        self._validator = Validator()
        for service in {rule.rpc.desc.parent.file.proto.name for rule in routes.rules}:
            importlib.import_module(service.removesuffix(".proto").replace("/", ".") + "_pb2")

    def refusals(self, request: requests.PreparedRequest) -> list[str]:
        """Why the request would be refused."""
        url, body = urlsplit(str(request.url)), request.body or b""
        body = body.encode() if isinstance(body, str) else body
        try:
            match = self._router.match(str(request.method), url.path)
            body = body if match.target.has_body else b""
            message, _ = self._transcoder.decode_request(match, body, b"application/json", url.query.encode())
        except EdgeError as error:
            return [error.message]
        found = descriptor_pool.Default().FindMessageTypeByName(match.target.rpc.input.type_name)
        known: Any = message_factory.GetMessageClass(found).FromString(message.to_binary())
        violations = [violation.proto for violation in self._validator.collect_violations(known)]
        return [f"{it.rule_id}: {it.message}" for it in violations if not is_beyond(it, message)]


def is_beyond(violation: Any, message: Any) -> bool:
    # Of money, only what must not be zero, and what stands in a query, cannot be said.
    return violation.rule_id in BEYOND or (
        violation.rule_id == "money" and ("above 0" in violation.message or "_price" in str(violation.field))
    )


@pytest.fixture(scope="module")
def served() -> Served:
    return Served()


def refusals_of(served: Served, operation: Any) -> list[list[str]]:
    """What was refused of the requests that one operation's description allows."""
    refused: list[list[str]] = []

    @settings(
        max_examples=12,
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    @given(case=operation.as_strategy())
    def send(case: schemathesis.Case) -> None:
        arguments = case.as_transport_kwargs(base_url="http://edge")
        wanted = ("method", "url", "headers", "params", "data", "json", "cookies")
        request = requests.Request(**{name: arguments[name] for name in wanted if name in arguments}).prepare()
        if reasons := served.refusals(request):
            refused.append([f"{request.method} {request.url} {request.body!r}", *reasons])

    send()
    return refused


@pytest.mark.parametrize("tag", TAGS)
def test_what_the_document_allows_is_accepted(served: Served, tag: str) -> None:
    schema = schemathesis.openapi.from_dict(SHOP).include(tag=tag)
    operations = [found.ok() for found in schema.get_all_operations()]

    assert len(operations) > 3
    assert [refusal for operation in operations for refusal in refusals_of(served, operation)] == []
