"""Coverage-guided fuzzing: `python -m tests.edge.fuzz TARGET DESCRIPTORS [libFuzzer options]`.

A target accepts bytes or rejects them with an EdgeError; any other exception is a finding.
"""

import contextlib
import sys
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["edge_gateway"], enable_loader_override=False):
    from edge_gateway.errors import EdgeError
    from edge_gateway.json.field_selection import parse_fields
    from edge_gateway.json.json_stream_splitter import JsonStreamSplitter
    from edge_gateway.json.protojson import JsonCodec, JsonFormat
    from edge_gateway.routing.descriptors import load_registry
    from edge_gateway.routing.query_binding import QueryBinder
    from edge_gateway.routing.router import Router
    from edge_gateway.routing.rules import compile_routes
    from edge_gateway.routing.template import TemplateError, parse_template


def targets(descriptors: str) -> dict[str, Callable[[bytes], object]]:
    """Return the fuzz targets: every parser of client input."""
    registry = load_registry(Path(descriptors).read_bytes())
    kinds = registry.message("edgetest.v1.Kinds")
    assert kinds is not None
    router = compile_routes(registry, prefix="/api").router
    strict, lenient = JsonCodec(registry), JsonCodec(registry, ignore_unknown=True)

    def route(data: bytes) -> object:
        method, _, path = data.decode("latin-1").partition(" ")
        return router.match(method, path)

    def body(data: bytes) -> object:
        codec = strict if data[:1] < b"\x80" else lenient
        message = codec.decode(kinds, data[1:])
        again = codec.decode(kinds, codec.encode(message, JsonFormat()))
        assert again == message
        return message.to_binary()

    def nested(data: bytes) -> object:
        """Repeat a part of a body up to depths that overflow a stack; the first bytes choose the part and the count."""
        times, begin, body = data[:2], data[2:3], data[3:]
        start = begin[0] % (len(body) + 1) if begin else 0
        return strict.decode(kinds, body[:start] + body[start:] * (1 + int.from_bytes(times) // 2))

    def reply(data: bytes) -> object:
        with contextlib.suppress(ValueError, RecursionError, EdgeError):  # what a back end sends wrong is a 500
            return strict.encode(kinds.type.from_binary(data), JsonFormat())
        return None

    def query(data: bytes) -> object:
        message = kinds.type()
        QueryBinder(kinds, variables=(), body=None, closed=False).bind(message, data)
        return message.to_binary()

    def stream(data: bytes) -> object:
        splitter = JsonStreamSplitter(1000)
        found = [part for at in range(0, len(data), 7) for part in splitter.feed(data[at : at + 7])]
        splitter.finish()
        return found

    def template(data: bytes) -> object:
        try:
            parsed = parse_template(data.decode("latin-1"))
        except TemplateError:
            return None
        Router[int]().add("GET", parsed, 1)
        return parsed

    def fields(data: bytes) -> object:
        return parse_fields(data.decode("latin-1"), kinds)

    found = (route, body, nested, reply, query, stream, template, fields)
    return {target.__name__: target for target in found}


def main() -> None:
    name, descriptors, *options = sys.argv[1:]
    target = targets(descriptors)[name]

    def once(data: bytes) -> None:
        try:
            target(data)
        except EdgeError as error:
            if error.http_status not in (400, 404, 405, 413):
                raise AssertionError(f"rejected with {error.http_status}") from error

    atheris.Setup([sys.argv[0], *options], once)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
