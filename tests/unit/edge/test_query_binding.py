"""Queries under fuzzing: a query sets fields or is a 400."""

from urllib.parse import quote_plus

from hypothesis import given, settings
from hypothesis import strategies as st
from protobuf import DescMessage, Registry

from edge_gateway.errors import EdgeError
from edge_gateway.json.protojson import JsonCodec, JsonFormat
from edge_gateway.routing.query_binding import QueryBinder, parse_query
from tests.edge.attempts import attempt

FUZZ = settings(derandomize=True, max_examples=100, deadline=None)
NAMES = st.sampled_from(
    [
        "name",
        "i32",
        "i64",
        "u32",
        "flag",
        "f32",
        "f64",
        "by",
        "color",
        "sub.s",
        "sub.sub.n",
        "sub.r",
        "rs",
        "ri",
        "ms[a]",
        "ms[b]",
        "mb[true]",
        "mc[x]",
        "ts",
        "du",
        "mask",
        "w64",
        "ws",
        "wb",
        "opt",
        "oa",
        "ob",
        "oc.s",
        "deep.deep.name",
        "deep.ms[a]",
        "snakeCaseName",
        "snake_case_name",
        "colors",
        "struct",
        "value",
        "any",
        "subs",
        "bogus",
        "sub",
        "[",
        "a[b",
    ]
)
VALUES = st.sampled_from(["", "1", "-1", "true", "COLOR_RED", "2020-01-02T03:04:05Z", "3s", "AA==", "1.5", "NaN", "x"])


def kinds(registry: Registry) -> DescMessage:
    found = registry.message("edgetest.v1.Kinds")
    assert found is not None
    return found


def bind(registry: Registry, query: bytes) -> None:
    message = kinds(registry).type()
    binder = QueryBinder(kinds(registry), variables=(), body=None, closed=False)
    rejected = attempt(lambda: binder.bind(message, query))
    if isinstance(rejected, EdgeError):
        assert rejected.http_status == 400
        return
    JsonCodec(registry).encode(message, JsonFormat())
    assert type(message).from_binary(message.to_binary()) == message


@FUZZ
@given(pairs=st.lists(st.tuples(NAMES, VALUES | st.text(max_size=6)), max_size=5))
def test_query_parameters_set_fields_or_are_rejected(pairs: list[tuple[str, str]], registry: Registry) -> None:
    texts = [(name, value.encode("utf-8", "surrogatepass")) for name, value in pairs]
    bind(registry, "&".join(f"{name}={quote_plus(value)}" for name, value in texts).encode())


@FUZZ
@given(query=st.binary(max_size=40))
def test_arbitrary_query_bytes_set_fields_or_are_rejected(query: bytes, registry: Registry) -> None:
    bind(registry, query)


@FUZZ
@given(pairs=st.lists(st.tuples(st.text("ab+ %&=é", min_size=1), st.text("ab+ %&=é;")), max_size=4))
def test_a_form_encoded_query_is_parsed(pairs: list[tuple[str, str]]) -> None:
    query = "&".join(f"{quote_plus(name)}={quote_plus(value)}" for name, value in pairs)
    assert parse_query(query.encode()) == pairs


def test_the_cache_of_resolved_names_is_bounded(registry: Registry) -> None:
    binder = QueryBinder(kinds(registry), variables=(), body=None, closed=False)
    for depth in range(1, 100):
        for leaf in (b"name=x", b"i32=1", b"flag=1", b"f64=1"):
            binder.bind(kinds(registry).type(), b"deep." * depth + leaf)
    assert len(binder._bindings) <= 300
