"""`/healthz`: the grpc.health.v1 status of the back ends, as HTTP statuses."""

import asyncio
from collections.abc import Iterable

from google.protobuf.message import DecodeError
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse

from edge_gateway.errors import EdgeError
from edge_gateway.grpc_client.upstreams import UpstreamError, Upstreams
from edge_gateway.http.exchange import Exchange
from edge_gateway.routing.query_binding import parse_query

_CHECK = "/grpc.health.v1.Health/Check"
_TIMEOUT = 2.0
_STATUSES = {"SERVING": 200, "SERVICE_UNKNOWN": 404}


class Health:
    """Checks the back ends; reports NOT_SERVING while this process drains."""

    def __init__(self, upstreams: Upstreams, services: Iterable[str]) -> None:
        self._upstreams = upstreams
        #: The targets of the routed services; others do not affect this edge's health.
        self._targets = sorted({upstreams.target(service) for service in services})
        self.draining = False

    async def serve(self, exchange: Exchange) -> None:
        """Serve /healthz, and /healthz?service=pkg.Service."""
        service = dict(parse_query(exchange.request.query)).get("service", "")
        status = "NOT_SERVING" if self.draining else await self.check(service)
        body = b'{"status":"%s"}' % status.encode()
        headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
        await exchange.respond(_STATUSES.get(status, 503), headers, body)

    async def check(self, service: str) -> str:
        """Return the status of a service, or without a name the first status of a back end that is not SERVING."""
        if service:
            try:
                return await self._ask(self._upstreams.target(service), service)
            except LookupError:
                return "SERVICE_UNKNOWN"
        found = await asyncio.gather(*(self._ask(target, "") for target in self._targets))
        return next((status for status in found if status != "SERVING"), "SERVING")

    async def _ask(self, target: str, service: str) -> str:
        request = HealthCheckRequest(service=service).SerializeToString()
        try:
            reply = await self._upstreams.unary_at(target, _CHECK, request, (), _TIMEOUT)
            parsed = HealthCheckResponse.FromString(reply.message)
            return HealthCheckResponse.ServingStatus.Name(parsed.status)
        except UpstreamError as failure:
            if failure.code == 5:
                return "SERVICE_UNKNOWN"
            return "SERVING" if failure.code == 12 else "UNKNOWN"  # it responds, but implements no health checks
        except (DecodeError, ValueError, EdgeError):
            return "UNKNOWN"
