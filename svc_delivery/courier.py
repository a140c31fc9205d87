"""The courier's API as svc_delivery uses it, and its webhooks.

Every call ends Ok, Refused or Unknown (chassis.external.api); after Unknown, `find_by_reference` tells what became
of it, and so does the same call again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from chassis.external import webhooks
from chassis.external.api import CallResult, ExternalApi, Ok, Unknown, field
from chassis.external.webhooks import Webhook


class Status(StrEnum):
    LABELLED = "LABELLED"
    PICKED_UP = "PICKED_UP"
    IN_TRANSIT = "IN_TRANSIT"
    OUT_FOR_DELIVERY = "OUT_FOR_DELIVERY"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"
    RETURNED = "RETURNED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True, kw_only=True)
class CourierAddress:
    recipient: str
    line1: str
    line2: str | None = None
    city: str
    postal_code: str
    country: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    status: Status
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Consignment:
    """A shipment as the courier has it; `reference` is our shipment's id, `version` grows with each move."""

    id: str
    reference: str
    tracking_number: str
    label_id: str
    weight_grams: int
    status: Status
    version: int
    movements: tuple[Movement, ...]


class Courier:
    def __init__(self, *, url: str, key: str, timeout: float = 10.0) -> None:
        self._api = ExternalApi(url=url, key=key, timeout=timeout)

    async def create(self, *, reference: str, address: CourierAddress, weight_grams: int) -> CallResult[Consignment]:
        """Hands a shipment over; a courier has one consignment of a reference, however often asked."""
        body = {"reference": reference, "address": asdict(address), "weight_grams": weight_grams}
        outcome = await self._api.call("POST", "/v1/consignments", read=_consignment, body=body)
        match outcome:
            case Ok(consignment) if consignment.reference != reference:
                return Unknown("answer_mismatch")
            case _:
                return outcome

    async def cancel(self, consignment_id: str) -> CallResult[Consignment]:
        """Takes a shipment back that was not picked up; to repeat it is fine."""
        path = f"/v1/consignments/{quote(consignment_id, safe='')}/cancel"
        return await self._api.call("POST", path, read=_consignment)

    async def get(self, consignment_id: str) -> CallResult[Consignment]:
        return await self._api.call("GET", f"/v1/consignments/{quote(consignment_id, safe='')}", read=_consignment)

    async def find_by_reference(self, reference: str) -> CallResult[Consignment | None]:
        """The consignment of this reference; None when no request for one has arrived (yet)."""
        params = {"reference": reference}
        return await self._api.call("GET", "/v1/consignments", read=_first_consignment, params=params)

    async def aclose(self) -> None:
        await self._api.aclose()


def verify_webhook(
    headers: Mapping[str, str], raw_body: bytes, secrets: Sequence[str], now: datetime
) -> Webhook[Consignment]:
    """A webhook that is signed and of these minutes; else raises chassis.external.webhooks.WebhookRejected."""
    return webhooks.verify(headers, raw_body, secrets, now, read=_consignment)


def _consignment(answer: Any) -> Consignment:
    return Consignment(
        id=field(answer, "id", str),
        reference=field(answer, "reference", str),
        tracking_number=field(answer, "tracking_number", str),
        label_id=field(answer, "label_id", str),
        weight_grams=field(answer, "weight_grams", int),
        status=Status(field(answer, "status", str)),
        version=field(answer, "version", int),
        movements=tuple(_movement(movement) for movement in field(answer, "movements", list)),
    )


def _movement(answer: Any) -> Movement:
    time = datetime.fromisoformat(field(answer, "create_time", str))
    return Movement(status=Status(field(answer, "status", str)), time=time)


def _first_consignment(answer: Any) -> Consignment | None:
    return next((_consignment(consignment) for consignment in field(answer, "data", list)), None)
