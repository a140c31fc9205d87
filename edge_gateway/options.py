"""The options of the command line, with their defaults from Settings, and their conversion to Settings."""

import argparse
from collections.abc import Callable

from protobuf import Registry

from edge_gateway.routing.descriptors import has_policies
from edge_gateway.settings import Settings

_DEFAULTS = Settings()


def parser() -> argparse.ArgumentParser:
    """Return the parser of all options; --help shows them by group."""
    it = argparse.ArgumentParser(prog="edge_gateway", description="JSON over HTTP in, gRPC out.")
    _back_ends(it)
    _process(it.add_argument_group("process").add_argument)
    _contract(it.add_argument_group("contract").add_argument)
    _requests(it.add_argument_group("requests").add_argument)
    _replies(it.add_argument_group("replies").add_argument)
    _browsers(it.add_argument_group("browsers").add_argument)
    return it


def _back_ends(it: argparse.ArgumentParser) -> None:
    group = it.add_argument_group("back ends")
    source, add = group.add_mutually_exclusive_group(required=True).add_argument, group.add_argument
    source("--descriptor-set", metavar="FILE", action="append", help="a FileDescriptorSet with its imports; repeatable")
    source("--reflect", metavar="HOST:PORT", help="fetch the descriptors of this back end instead")
    where = "where a service is: pkg.Service=host:port, pkg.*=host:port or *=host:port; grpcs:// for TLS"
    add("--upstream", metavar="NAME=TARGET", action="append", default=[], help=where)
    add("--upstream-ca", metavar="FILE", help="the root certificates for grpcs:// upstreams")
    add("--upstream-cert", metavar="FILE", help="the certificate, with its chain, that this edge shows to them")
    add("--upstream-key", metavar="FILE", help="its private key, if it is in another file")
    add("--metadata", metavar="NAME=VALUE", action="append", default=[], help="metadata set on every call")


def _process(add: Callable[..., object]) -> None:
    seconds = {"type": float, "metavar": "SECONDS"}
    drain_delay = "the time to keep listening after SIGTERM, while /healthz fails (0)"
    add("--listen", metavar="HOST:PORT", default="127.0.0.1:8080")
    add("--reflection-listen", metavar="HOST:PORT", help="serve gRPC reflection and health here")
    add("--metrics-listen", metavar="HOST:PORT", help="serve metrics for Prometheus here, with one worker")
    add("--check", action="store_true", help="only validate the routes: exit 0, or 1 with the reasons")
    add("--workers", type=int, default=1, help="processes that share the port")
    add("--shared-port", action="store_true", help=argparse.SUPPRESS)
    add("--drain-delay", **seconds, default=_DEFAULTS.drain_delay, help=drain_delay)
    add("--drain", **seconds, default=_DEFAULTS.drain, help="the time that running calls may take after that (20)")


def _contract(add: Callable[..., object]) -> None:
    add("--caller", default=_DEFAULTS.caller, help="the name of this edge's workload")
    add("--unbound", action="store_true", help="serve methods without a rule at POST /pkg.Service/Method")
    add("--strip-prefix", metavar="PATH", default=_DEFAULTS.prefix, help="a path prefix that routes ignore (/api)")


def _requests(add: Callable[..., object]) -> None:
    seconds, size = {"type": float, "metavar": "SECONDS"}, {"type": int, "metavar": "BYTES"}
    share = "the share of the traces begun here that are sampled, from 0 to 1 (1)"
    write_timeout = "the longest pause of a client within a body or while it reads a response (30)"
    deadline = "the deadline of unary calls without one of their own (30)"
    add("--forward-header", metavar="NAME", action="append", default=[], help="also pass on this request header")
    add("--trace-share", type=float, metavar="SHARE", default=_DEFAULTS.trace_share, help=share)
    add("--trusted-hops", type=int, default=0, help="proxies in front that append to X-Forwarded-For")
    add("--max-body", **size, default=_DEFAULTS.max_body, help="of a request (1 MiB)")
    add("--body-timeout", **seconds, default=_DEFAULTS.body_timeout, help=write_timeout)
    add("--default-timeout", **seconds, default=_DEFAULTS.default_timeout, help=deadline)
    add("--ignore-unknown-fields", action="store_true", help="ignore unknown JSON fields rather than reject them")


def _replies(add: Callable[..., object]) -> None:
    seconds, size = {"type": float, "metavar": "SECONDS"}, {"type": int, "metavar": "BYTES"}
    max_age = "how long caches may keep public reads (5)"
    add("--expose-header", metavar="NAME", action="append", default=[], help="also pass back this reply metadata")
    add("--max-reply", **size, default=_DEFAULTS.max_reply, help="of a reply (16 MiB)")
    add("--omit-defaults", action="store_true", help="leave fields with default values out of replies")
    add("--proto-names", action="store_true", help="write proto field names rather than lowerCamelCase")
    add("--enum-numbers", action="store_true", help="write enum values as numbers")
    add("--public-max-age", type=int, metavar="SECONDS", default=_DEFAULTS.public_max_age, help=max_age)
    add(
        "--heartbeat",
        **seconds,
        default=_DEFAULTS.heartbeat,
        help="between heartbeats of an event stream (15)",
    )
    add("--no-compression", action="store_true", help="do not compress responses, for a proxy in front")


def _browsers(add: Callable[..., object]) -> None:
    origin = "an origin that may call: exact, https://*.example.com, http://localhost:* or *"
    add("--cors-origin", metavar="ORIGIN", action="append", default=[], help=origin)
    add("--no-docs", action="store_true", help="serve neither /openapi.json nor the pages under /docs")
    add("--static-dir", metavar="DIR", default=_DEFAULTS.static_dir, help="serve these pages, too, under /docs")


def settings_from(options: argparse.Namespace, registry: Registry) -> Settings:
    """Return the settings of a parsed command line."""
    caller = [("x-shop-caller", options.caller)] if has_policies(registry) and options.caller else []
    pairs = (text.partition("=") for text in options.metadata)
    return Settings(
        caller=options.caller,
        fixed_metadata=(*caller, *((name.lower(), value) for name, _, value in pairs)),
        forwarded_headers=tuple(options.forward_header),
        exposed_headers=tuple(options.expose_header),
        prefix=options.strip_prefix,
        trace_share=options.trace_share,
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
        static_dir=options.static_dir,
        drain_delay=options.drain_delay,
        drain=options.drain,
    )
