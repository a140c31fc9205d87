"""Adversarial input: parsing takes time linear in its length and bounded stack."""

import time
from collections.abc import Callable

import pytest
from protobuf import DescMessage, Registry

from edge_gateway.errors import EdgeError
from edge_gateway.grpc_client.metadata import MetadataIn
from edge_gateway.grpc_client.upstreams import Upstreams
from edge_gateway.json.json_parsing import is_plain
from edge_gateway.json.json_stream_splitter import JsonStreamSplitter
from edge_gateway.json.protojson import JsonCodec
from edge_gateway.routing.query_binding import QueryBinder
from tests.edge.attempts import attempt


@pytest.fixture
def kinds(registry: Registry) -> DescMessage:
    found = registry.message("edgetest.v1.Kinds")
    assert found is not None
    return found


def soon(call: Callable[[], object], within: float = 3.0) -> object:
    began = time.process_time()
    found = attempt(call)
    assert time.process_time() - began < within
    return found


def bind(kinds: DescMessage, query: bytes) -> object:
    return QueryBinder(kinds, variables=(), body=None, closed=False).bind(kinds.type(), query)


def test_a_string_of_underscores_is_checked_in_linear_time() -> None:
    assert soon(lambda: is_plain(b'{"name":"' + b"_" * 200_000 + b'"}'))


def test_a_duplicate_key_after_many_keys_is_rejected_in_linear_time(registry: Registry, kinds: DescMessage) -> None:
    keys = b",".join(b'"k%d":1' % number for number in range(40_000))
    found = soon(lambda: JsonCodec(registry).decode(kinds, b"{" + keys + b',"z":1,"z":1}'))
    assert str(found) == "z: occurs more than once"


@pytest.mark.parametrize("name", [b"[" * 160_000, b"a" + b"[]" * 80_000 + b"["])
def test_a_parameter_name_of_brackets_is_rejected_in_linear_time(name: bytes, kinds: DescMessage) -> None:
    assert isinstance(soon(lambda: bind(kinds, name + b"=1")), EdgeError)


def test_a_map_key_may_contain_brackets(kinds: DescMessage) -> None:
    message = kinds.type()
    QueryBinder(kinds, variables=(), body=None, closed=False).bind(message, b"ms[a[b]]=x&ms[]=y")
    assert message.ms == {"a[b]": "x", "": "y"}


def test_a_parameter_path_beyond_the_depth_limit_is_rejected(kinds: DescMessage) -> None:
    found = soon(lambda: bind(kinds, b"deep." * 3_000 + b"name=a"))
    assert isinstance(found, EdgeError)
    assert found.http_status == 400


def test_a_service_name_of_dots_is_resolved_in_linear_time() -> None:
    upstreams = Upstreams({"*": "h:1", "a.*": "h:2"}, max_message=1)
    assert soon(lambda: upstreams.target("." * 160_000)) == "h:1"


def test_an_object_that_arrives_byte_by_byte_is_split_in_linear_time() -> None:
    splitter = JsonStreamSplitter(200_000)
    splitter.feed(b'{"a":"')
    assert soon(lambda: [splitter.feed(b"x") for _ in range(150_000)]) == [[]] * 150_000
    assert splitter.feed(b'\\"}"}') == [b'{"a":"' + b"x" * 150_000 + b'\\"}"}']


def test_many_headers_are_rejected_in_linear_time() -> None:
    headers = [(b"grpc-metadata-%d" % number, b"x" * 100) for number in range(100)]
    found = soon(lambda: MetadataIn().build(headers, "id", "client"))
    assert isinstance(found, EdgeError)
    assert found.http_status == 431


@pytest.mark.parametrize("lenient", [False, True])
def test_an_error_at_the_bottom_of_a_deep_body_is_found_in_linear_time(
    registry: Registry, kinds: DescMessage, *, lenient: bool
) -> None:
    inner = b'{"rs":[' + b'"abcdefgh",' * 20_000 + b'"x"],"flag":"no"}'
    body = b'{"deep":' * 90 + inner + b"}" * 90
    found = soon(lambda: JsonCodec(registry, ignore_unknown=lenient).decode(kinds, body))
    assert str(found).endswith("deep.flag: must be true or false")
