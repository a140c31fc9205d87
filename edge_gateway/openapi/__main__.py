"""`python -m edge_gateway.openapi --descriptor-set gen/shop/shop.binpb -o docs/openapi.json`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from edge_gateway.openapi.document import document
from edge_gateway.routing.descriptors import DescriptorError, load_registry
from edge_gateway.routing.rules import compile_routes
from edge_gateway.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the document of a descriptor set as an edge with default settings serves it."""
    parser = argparse.ArgumentParser(prog="edge_gateway.openapi", description="Writes an OpenAPI document.")
    parser.add_argument("--descriptor-set", metavar="FILE", action="append", required=True)
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="`-` for standard output")
    options = parser.parse_args(arguments)
    settings = Settings()
    try:
        registry = load_registry(b"".join(Path(path).read_bytes() for path in options.descriptor_set))
        routes = compile_routes(registry, caller=settings.caller, prefix=settings.prefix)
    except (DescriptorError, OSError) as error:
        print(f"edge_gateway.openapi: {error}", file=sys.stderr)  # noqa: T201 - output of the command line
        return 1
    if routes.problems:
        print("\n".join(routes.problems), file=sys.stderr)  # noqa: T201
        return 1
    text = json.dumps(document(registry, routes, settings), ensure_ascii=False, indent=2) + "\n"
    if options.output == "-":
        sys.stdout.write(text)
    else:
        Path(options.output).write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
