"""The command line: `python -m edge_gateway --descriptor-set x.binpb --upstream '*=host:port' --listen host:port`."""

import argparse
import logging
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop
from protobuf import Registry

from edge_gateway.app import Gateway
from edge_gateway.descriptors import DescriptorError, has_policies, load_registry
from edge_gateway.reflection import fetch_registry, serve_reflection
from edge_gateway.rules import Routes, compile_routes
from edge_gateway.server import CANNOT_START, bind, serve, supervise
from edge_gateway.settings import Settings
from edge_gateway.upstream import UnknownServiceError, Upstreams, parse_upstreams


def main(arguments: Sequence[str] | None = None) -> int:
    """Parses the command line and serves; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = parser().parse_args(given)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if options.workers > 1 and not options.check:
        return uvloop.run(supervise([*given, "--workers", "1", "--shared-port"], options.workers))
    try:
        code = uvloop.run(_run(options))
    except (DescriptorError, ValueError, OSError) as error:
        print(f"edge_gateway: {error}", file=sys.stderr)  # noqa: T201 - the command line speaks so
        code = 1
    return CANNOT_START if code and options.shared_port else code


def parser() -> argparse.ArgumentParser:
    """Every option, with its default from Settings."""
    defaults = Settings()
    it = argparse.ArgumentParser(prog="edge_gateway", description="JSON over HTTP in, gRPC out.")
    source = it.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--descriptor-set",
        metavar="FILE",
        action="append",
        help="a FileDescriptorSet with its imports; may be repeated",
    )
    source.add_argument("--reflect", metavar="HOST:PORT", help="ask this back end for its descriptors instead")
    it.add_argument(
        "--upstream",
        metavar="NAME=TARGET",
        action="append",
        default=[],
        help="where a service is: pkg.Service=host:port, pkg.*=host:port or *=host:port; grpcs:// for TLS",
    )
    it.add_argument("--upstream-ca", metavar="FILE", help="the root certificates for grpcs:// upstreams")
    it.add_argument("--listen", metavar="HOST:PORT", default="127.0.0.1:8080")
    it.add_argument("--reflection-listen", metavar="HOST:PORT", help="serve gRPC reflection and health here")
    it.add_argument("--check", action="store_true", help="only validate the routes: exit 0, or 1 with the reasons")
    it.add_argument("--workers", type=int, default=1, help="processes that share the port")
    it.add_argument("--shared-port", action="store_true", help=argparse.SUPPRESS)
    it.add_argument("--caller", default=defaults.caller, help="the workload that this edge is")
    it.add_argument("--metadata", metavar="NAME=VALUE", action="append", default=[], help="metadata set on every call")
    it.add_argument(
        "--forward-header", metavar="NAME", action="append", default=[], help="also pass on this request header"
    )
    it.add_argument(
        "--expose-header", metavar="NAME", action="append", default=[], help="also pass back this reply metadata"
    )
    it.add_argument("--strip-prefix", metavar="PATH", default=defaults.prefix, help="a path prefix taken as absent")
    it.add_argument("--trusted-hops", type=int, default=0, help="proxies in front that append to X-Forwarded-For")
    it.add_argument("--max-body", type=int, metavar="BYTES", default=defaults.max_body, help="of a request (1 MiB)")
    it.add_argument(
        "--body-timeout",
        type=float,
        metavar="SECONDS",
        default=defaults.body_timeout,
        help="the longest silence in a body",
    )
    it.add_argument("--max-reply", type=int, metavar="BYTES", default=defaults.max_reply, help="of a reply (16 MiB)")
    it.add_argument(
        "--default-timeout",
        type=float,
        metavar="SECONDS",
        default=defaults.default_timeout,
        help="the deadline of unary calls that nobody sets another for (30)",
    )
    it.add_argument(
        "--ignore-unknown-fields", action="store_true", help="ignore unknown JSON fields rather than refuse them"
    )
    it.add_argument("--omit-defaults", action="store_true", help="leave fields with default values out of replies")
    it.add_argument("--proto-names", action="store_true", help="write proto field names rather than lowerCamelCase")
    it.add_argument("--enum-numbers", action="store_true", help="write enum values as numbers")
    it.add_argument("--unbound", action="store_true", help="serve methods without a rule at POST /pkg.Service/Method")
    it.add_argument(
        "--public-max-age",
        type=int,
        metavar="SECONDS",
        default=defaults.public_max_age,
        help="how long caches may keep public reads (5)",
    )
    it.add_argument(
        "--heartbeat",
        type=float,
        metavar="SECONDS",
        default=defaults.heartbeat,
        help="the longest silence of an event stream (15)",
    )
    it.add_argument(
        "--cors-origin",
        metavar="ORIGIN",
        action="append",
        default=[],
        help="an origin that browsers may call from: exact, https://*.example.com, http://localhost:* or *",
    )
    it.add_argument("--no-compression", action="store_true", help="leave it to a proxy in front")
    it.add_argument("--no-docs", action="store_true", help="serve neither /openapi.json nor the pages under /docs")
    it.add_argument("--redis", metavar="URL", default="", help="count rate limits here, for all workers together")
    it.add_argument(
        "--drain-delay",
        type=float,
        metavar="SECONDS",
        default=defaults.drain_delay,
        help="listen on for so long after SIGTERM, while /healthz fails",
    )
    it.add_argument(
        "--drain", type=float, metavar="SECONDS", default=defaults.drain, help="how long running calls may take then"
    )
    return it  # fmt: skip


def settings_from(options: argparse.Namespace, registry: Registry) -> Settings:
    """The settings that a command line means."""
    caller = [("x-shop-caller", options.caller)] if has_policies(registry) and options.caller else []
    pairs = (text.partition("=") for text in options.metadata)
    return Settings(
        caller=options.caller,
        fixed_metadata=(*caller, *((name.lower(), value) for name, _, value in pairs)),
        forwarded_headers=tuple(options.forward_header),
        exposed_headers=tuple(options.expose_header),
        prefix=options.strip_prefix,
        trusted_hops=options.trusted_hops,
        max_body=options.max_body,
        body_timeout=options.body_timeout,
        max_reply=options.max_reply,
        default_timeout=options.default_timeout,
        ignore_unknown=options.ignore_unknown_fields,
        emit_defaults=not options.omit_defaults,
        proto_names=options.proto_names,
        enum_numbers=options.enum_numbers,
        unbound=options.unbound,
        public_max_age=options.public_max_age,
        heartbeat=options.heartbeat,
        cors_origins=tuple(options.cors_origin),
        compress=not options.no_compression,
        docs=not options.no_docs,
        redis_url=options.redis,
        drain_delay=options.drain_delay,
        drain=options.drain,
    )


async def _run(options: argparse.Namespace) -> int:
    targets = parse_upstreams(options.upstream)
    if options.reflect:
        targets.setdefault("*", options.reflect)
    upstreams = Upstreams(
        targets,
        max_message=options.max_reply,
        root_certificates=_read(options.upstream_ca).decode() if options.upstream_ca else None,
    )
    try:
        registry = await _registry(options)
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
    sock = bind(options.listen, shared=options.shared_port)
    reflection = None
    if options.reflection_listen:
        reflection, _ = await serve_reflection(registry, options.reflection_listen)
    host, port = sock.getsockname()[:2]

    def ready() -> None:
        logging.getLogger("edge_gateway").info("%d routes on http://%s:%d", len(routes.rules), host, port)

    try:
        await serve(gateway, sock, settings, ready)
    finally:
        if reflection is not None:
            await reflection.stop(1.0)


async def _registry(options: argparse.Namespace) -> Registry:
    if options.reflect:
        return await fetch_registry(options.reflect)
    # The wire format of a set is a list of files, so sets are joined by joining their bytes.
    return load_registry(b"".join(_read(path) for path in options.descriptor_set))


def _read(path: str) -> bytes:
    return Path(path).read_bytes()


def _check_upstreams(routes: Routes, upstreams: Upstreams, *, check: bool) -> None:
    for service in sorted({rule.rpc.service for rule in routes.rules}):
        try:
            upstreams.target(service)
        except UnknownServiceError:
            if not check:  # routes alone can be checked without knowing where the services are
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
