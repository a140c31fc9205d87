"""Sends the courier's webhooks to the service as the edge does, signed as the courier signs them."""

import time
import uuid

import grpc
import orjson
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from mesh.simulators.webhooks import sign
from tests.integration.svc_delivery.conftest import SECRET


class CourierWebhooks:
    """Sends webhooks to the service at `address`."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def send(
        self,
        consignment: dict,
        *,
        webhook_id: str | None = None,
        secrets: tuple[str, ...] = (SECRET,),
        seconds_ago: int = 0,
    ) -> grpc.StatusCode:
        body = orjson.dumps({"type": "consignment.status_changed", "data": consignment})
        headers = sign(secrets, webhook_id or f"evt_{uuid.uuid4().hex}", int(time.time()) - seconds_ago, body)
        return await self.post(body, headers)

    async def post(self, body: bytes, headers: dict[str, str]) -> grpc.StatusCode:
        """Send any bytes with any headers; return the status code."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            receive = channel.unary_unary(
                "/shop.delivery.v1.ShipmentService/ReceiveCourierEvent",
                request_serializer=HttpBody.SerializeToString,
                response_deserializer=Empty.FromString,
            )
            try:
                await receive(
                    HttpBody(content_type="application/json", data=body),
                    metadata=[*headers.items(), ("x-shop-caller", "edge")],
                    timeout=10,
                )
            except grpc.aio.AioRpcError as error:
                return error.code()
        return grpc.StatusCode.OK


def as_of_version(consignment: dict, version: int) -> dict:
    """Return a consignment as it was at an earlier version."""
    movements = consignment["movements"][:version]
    return consignment | {"version": version, "status": movements[-1]["status"], "movements": movements}
