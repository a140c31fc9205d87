"""What all roads through the gateway share: the unary one, streams over HTTP, and sockets."""

from dataclasses import dataclass

from protobuf import Registry

from edge_gateway.calling import Caller
from edge_gateway.conditional import Conditions
from edge_gateway.cors import Cors
from edge_gateway.counting import LocalCounter
from edge_gateway.descriptors import reason_statuses
from edge_gateway.protojson import JsonCodec, Print
from edge_gateway.ratelimit import RateLimiter
from edge_gateway.redis_counter import RedisCounter
from edge_gateway.relay import Relays
from edge_gateway.router import Router
from edge_gateway.rules import Routes, Rule
from edge_gateway.settings import Settings
from edge_gateway.status import StatusReader
from edge_gateway.transcoder import Transcoder
from edge_gateway.upstream import Upstreams


@dataclass(frozen=True, slots=True)
class Parts:
    """One of each."""

    settings: Settings
    router: Router[Rule]
    transcoder: Transcoder
    caller: Caller
    conditions: Conditions
    cors: Cors
    limiter: RateLimiter
    relays: Relays


def build_parts(registry: Registry, routes: Routes, upstreams: Upstreams, settings: Settings) -> Parts:
    """Puts the parts together."""
    codec = JsonCodec(registry, ignore_unknown=settings.ignore_unknown)
    how = Print(
        emit_defaults=settings.emit_defaults, proto_names=settings.proto_names, enum_numbers=settings.enum_numbers
    )
    counter = RedisCounter(settings.redis_url) if settings.redis_url else LocalCounter()
    return Parts(
        settings=settings,
        router=routes.router,
        transcoder=Transcoder(codec, how),
        caller=Caller(upstreams, StatusReader(registry, reason_statuses(registry)), settings),
        conditions=Conditions(settings.public_max_age),
        cors=Cors(settings.cors_origins, exposed=settings.exposed_headers, max_age=settings.cors_max_age),
        limiter=RateLimiter(counter, settings.trusted_hops),
        relays=Relays(),
    )
