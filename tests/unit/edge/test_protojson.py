"""The JSON codec under fuzzing, compared with google.protobuf's json_format."""

import importlib
import json
from typing import Any

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from protobuf import DescMessage, Registry

from edge_gateway.errors import EdgeError
from edge_gateway.json.protojson import JsonCodec, JsonFormat
from tests.edge.attempts import attempt

FUZZ = settings(derandomize=True, max_examples=100, deadline=None)

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=8)
INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
SUB = st.fixed_dictionaries(
    {},
    optional={
        "s": TEXT,
        "longName": TEXT,
        "r": st.lists(INT32, max_size=3),
        "sub": st.fixed_dictionaries({}, optional={"n": INT32, "words": st.lists(TEXT, max_size=2)}),
    },
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
KINDS = st.fixed_dictionaries(
    {},
    optional={
        "name": TEXT,
        "i32": INT32,
        "i64": INT64.map(str),
        "u64": st.integers(0, 2**64 - 1).map(str),
        "flag": st.booleans(),
        "f64": st.floats(allow_nan=False, allow_infinity=False),
        "by": st.sampled_from(["", "AA==", "/+8=", "AQIDBA=="]),
        "color": st.sampled_from(["COLOR_RED", "COLOR_BLUE", 1, 7]),
        "sub": SUB,
        "rs": st.lists(TEXT, max_size=3),
        "subs": st.lists(SUB, max_size=2),
        "ms": st.dictionaries(TEXT, TEXT, max_size=3),
        "mi": st.dictionaries(INT32.map(str), SUB, max_size=2),
        "mb": st.dictionaries(st.sampled_from(["true", "false"]), INT64.map(str), max_size=2),
        "ts": st.sampled_from(["2020-01-02T03:04:05Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999999999Z"]),
        "du": st.sampled_from(["0s", "3.500s", "-0.000000001s"]),
        "mask": st.sampled_from(["name", "name,sub.longName"]),
        "w64": INT64.map(str),
        "ws": TEXT,
        "opt": INT32,
        "struct": st.dictionaries(TEXT, JSON, max_size=3),
        "value": JSON,
        "any": st.just({"@type": "type.googleapis.com/google.protobuf.Duration", "value": "3s"}),
    },
)


@pytest.fixture(scope="session")
def kinds(registry: Registry) -> DescMessage:
    found = registry.message("edgetest.v1.Kinds")
    assert found is not None
    return found


@pytest.fixture(scope="session", params=[False, True], ids=["strict", "lenient"])
def codec(registry: Registry, request: pytest.FixtureRequest) -> JsonCodec:
    return JsonCodec(registry, ignore_unknown=request.param)


def parse_with_google(text: bytes) -> Any:
    """Return the message as google.protobuf parses it."""
    return json_format.Parse(text, importlib.import_module("edgetest.v1.library_pb2").Kinds())


@FUZZ
@given(value=KINDS)
def test_a_valid_message_equals_googles_and_round_trips(
    value: dict[str, Any], kinds: DescMessage, registry: Registry
) -> None:
    text = json.dumps(value).encode()
    codec = JsonCodec(registry)
    message = codec.decode(kinds, text)
    wanted = parse_with_google(text)
    assert type(wanted).FromString(message.to_binary()) == wanted
    for how in (
        JsonFormat(),
        JsonFormat(emit_defaults=False),
        JsonFormat(proto_names=True),
        JsonFormat(enum_numbers=True),
    ):
        written = codec.encode(message, how)
        assert parse_with_google(written) == wanted
        assert codec.decode(kinds, written) == message
        assert codec.to_value(message, how) == json.loads(written)


@FUZZ
@given(text=st.binary(max_size=60))
def test_arbitrary_bytes_are_decoded_or_rejected(text: bytes, codec: JsonCodec, kinds: DescMessage) -> None:
    decode_or_reject(codec, kinds, text)


class Pairs(list[tuple[str, Any]]):
    """An object with possible duplicate keys."""


NAMES = st.sampled_from(
    [
        "name",
        "i32",
        "i64",
        "sub",
        "rs",
        "subs",
        "ms",
        "mi",
        "ts",
        "value",
        "struct",
        "any",
        "snakeCaseName",
        "snake_case_name",
        "color",
        "colors",
        "deep",
        "oa",
        "ob",
        "oc",
        "w64",
        "mask",
        "du",
        "by",
        "empty",
        "bogus",
        "s",
    ]
)
WILD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["1", "COLOR_RED"]),
    lambda inner: st.lists(inner, max_size=3) | st.lists(st.tuples(NAMES, inner), max_size=4).map(Pairs),
    max_leaves=12,
)


def dump(value: Any) -> str:
    if isinstance(value, Pairs):
        return "{" + ",".join(f"{json.dumps(key)}:{dump(item)}" for key, item in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(dump, value)) + "]"
    return json.dumps(value)


@FUZZ
@given(value=WILD)
def test_arbitrary_json_is_decoded_or_rejected(value: Any, codec: JsonCodec, kinds: DescMessage) -> None:
    decode_or_reject(codec, kinds, dump(value).encode("utf-8", "surrogatepass"))


@FUZZ
@given(
    pieces=st.lists(
        st.sampled_from(["[", '{"deep":', '{"value":', '{"any":', '["]",', '["\\\\",', '"\\"', "]", "}", ",", '"']),
        min_size=1,
        max_size=6,
    ),
    times=st.sampled_from([1, 20, 99, 100, 1_000, 20_000]),
)
def test_deeply_nested_json_is_decoded_or_rejected(
    pieces: list[str], times: int, codec: JsonCodec, kinds: DescMessage
) -> None:
    decode_or_reject(codec, kinds, "".join(pieces * times).encode())


def decode_or_reject(codec: JsonCodec, kinds: DescMessage, text: bytes) -> None:
    message = attempt(lambda: codec.decode(kinds, text))
    if isinstance(message, EdgeError):
        assert message.http_status == 400
        assert message.message
    else:
        assert codec.decode(kinds, codec.encode(message, JsonFormat())) == message


@FUZZ
@given(value=WILD, field=NAMES)
def test_json_that_the_strict_codec_accepts_google_accepts_too(
    value: Any, field: str, kinds: DescMessage, registry: Registry
) -> None:
    text = dump(Pairs([(field, value)])).encode("utf-8", "surrogatepass")
    try:
        message = JsonCodec(registry).decode(kinds, text)
    except EdgeError:
        return
    wanted = parse_with_google(text)
    assert type(wanted).FromString(message.to_binary()) == wanted


@FUZZ
@given(text=st.binary(max_size=20) | JSON.map(lambda value: json.dumps(value).encode()))
def test_the_body_of_a_field_cannot_set_other_fields(text: bytes, kinds: DescMessage, registry: Registry) -> None:
    field = next(field for field in kinds.fields if field.name == "sub")
    message = attempt(lambda: JsonCodec(registry).decode_field(kinds, field, text))
    if isinstance(message, EdgeError):
        assert message.http_status == 400
        return
    assert {found.name for found in message} <= {"sub"}
