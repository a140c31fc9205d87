"""The courier's news, as the edge hands them to the service: what the courier says of a parcel, signed as it signs."""

import time
import uuid

import grpc
import orjson
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.empty_pb2 import Empty

from mesh.simulators.webhooks import sign
from tests.integration.svc_delivery.conftest import SECRET, SHIPMENTS


class CourierWebhooks:
    """Tells one service, at `address`."""

    def __init__(self, address: str) -> None:
        self.address = address

    async def tell(
        self,
        consignment: dict,
        *,
        webhook_id: str | None = None,
        secrets: tuple[str, ...] = (SECRET,),
        seconds_ago: int = 0,
    ) -> grpc.StatusCode:
        body = orjson.dumps({"type": "consignment.status_changed", "data": consignment})
        headers = sign(secrets, webhook_id or f"evt_{uuid.uuid4().hex}", int(time.time()) - seconds_ago, body)
        return await self.bring(body, headers)

    async def bring(self, body: bytes, headers: dict[str, str]) -> grpc.StatusCode:
        """Hands over any bytes with any headers; returns how they were received."""
        async with grpc.aio.insecure_channel(self.address) as channel:
            receive = channel.unary_unary(
                f"/{SHIPMENTS}/ReceiveCourierEvent",
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


def as_told_at(consignment: dict, version: int) -> dict:
    """A consignment as the courier told of it after so many moves."""
    moves = consignment["movements"][:version]
    return consignment | {"version": version, "status": moves[-1]["status"], "movements": moves}
