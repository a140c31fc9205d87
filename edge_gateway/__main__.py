"""The command line: `python -m edge_gateway --descriptor-set x.binpb --upstream '*=host:port' --listen host:port`."""

import argparse
import logging
import ssl
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import uvloop
from protobuf import Registry

from edge_gateway.gateway import Gateway
from edge_gateway.grpc_client.connection_pool import client_tls
from edge_gateway.grpc_client.reflection import fetch_registry, serve_reflection
from edge_gateway.grpc_client.upstreams import UnknownServiceError, Upstreams, parse_upstreams
from edge_gateway.metrics import serving_metrics
from edge_gateway.options import parser, settings_from
from edge_gateway.routing.descriptors import DescriptorError, load_registry
from edge_gateway.routing.rules import Routes, compile_routes
from edge_gateway.server import CANNOT_START, bind, serve, supervise
from edge_gateway.settings import Settings


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and serve; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if options.workers > 1 and not options.check:
        return uvloop.run(supervise([*given, "--workers", "1", "--shared-port"], options.workers))
    try:
        code = uvloop.run(_run(options))
    except (DescriptorError, ValueError, OSError) as error:
        print(f"edge_gateway: {error}", file=sys.stderr)  # noqa: T201 - output of the command line
        code = 1
    return CANNOT_START if code and options.shared_port else code


async def _run(options: argparse.Namespace) -> int:
    targets = parse_upstreams(options.upstream)
    if options.reflect:
        targets.setdefault("*", options.reflect)
    tls = client_tls(options.upstream_ca, options.upstream_cert, options.upstream_key)
    upstreams = Upstreams(targets, max_message=options.max_reply, tls=tls)
    try:
        registry = await _registry(options, tls)
        settings = settings_from(options, registry)
        routes = compile_routes(registry, caller=settings.caller, prefix=settings.prefix, unbound=settings.unbound)
        _check_upstreams(routes, upstreams, check=options.check)
        if options.check or routes.problems:
            return _report(routes)
        await _serve(options, registry, routes, upstreams, settings)
    finally:
        await upstreams.close()
    return 0


async def _serve(
    options: argparse.Namespace, registry: Registry, routes: Routes, upstreams: Upstreams, settings: Settings
) -> None:
    gateway = Gateway(registry, routes, upstreams, settings)
    sock = bind(options.listen, shared=options.shared_port, write_timeout=settings.body_timeout)
    reflection = None
    if options.reflection_listen:
        reflection, _ = await serve_reflection(registry, options.reflection_listen)
    host, port = sock.getsockname()[:2]

    def ready() -> None:
        logging.getLogger("edge_gateway").info("%d routes on http://%s:%d", len(routes.rules), host, port)

    try:
        async with serving_metrics(options.metrics_listen) if options.metrics_listen else nullcontext():
            await serve(gateway, sock, settings, ready)
    finally:
        if reflection is not None:
            await reflection.stop(1.0)


async def _registry(options: argparse.Namespace, tls: ssl.SSLContext) -> Registry:
    if options.reflect:
        return await fetch_registry(options.reflect, tls)
    # A set is a list of files on the wire, so concatenating the bytes of sets concatenates their lists.
    return load_registry(b"".join(_read(path) for path in options.descriptor_set))


def _read(path: str) -> bytes:
    return Path(path).read_bytes()


def _check_upstreams(routes: Routes, upstreams: Upstreams, *, check: bool) -> None:
    for service in sorted({rule.rpc.service for rule in routes.rules}):
        try:
            upstreams.target(service)
        except UnknownServiceError:
            if not check:  # --check validates routes alone, without upstreams
                routes.problems.append(f"{service}: no --upstream is named for it")


def _report(routes: Routes) -> int:
    for problem in routes.problems:
        print(problem, file=sys.stderr)  # noqa: T201
    for line in routes.unrouted:
        print(f"not routed: {line}")  # noqa: T201
    print(f"{len(routes.rules)} routes, {len(routes.problems)} problems")  # noqa: T201
    return 1 if routes.problems else 0


if __name__ == "__main__":
    sys.exit(main())
