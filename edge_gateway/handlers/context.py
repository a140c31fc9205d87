"""What all roads through the gateway share: the unary one, streams over HTTP, and sockets."""

from dataclasses import dataclass

from protobuf import Registry

from edge_gateway.grpc_client.invoker import Caller
from edge_gateway.grpc_client.status import StatusReader
from edge_gateway.grpc_client.upstreams import Upstreams
from edge_gateway.handlers.relay import Relays
from edge_gateway.json.protojson import JsonCodec, Print
from edge_gateway.json.transcoder import Transcoder
from edge_gateway.policies.conditional_requests import Conditions
from edge_gateway.policies.cors import Cors
from edge_gateway.policies.rate_counters import LocalCounter
from edge_gateway.policies.rate_limiter import RateLimiter
from edge_gateway.policies.redis_counter import RedisCounter
from edge_gateway.routing.descriptors import reason_statuses
from edge_gateway.routing.router import Router
from edge_gateway.routing.rules import Routes, Rule
from edge_gateway.settings import Settings


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
