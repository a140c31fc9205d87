"""The courier's API as svc_delivery uses it, and the data of its webhooks.

Every call ends Ok, Refused or Unknown (chassis.external.api); after Unknown, `find_by_reference` returns what the
courier has, and the same call may be repeated.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any
from urllib.parse import quote

from chassis.external.api import CallResult, ExternalApi, Ok, Unknown, field


class Status(StrEnum):
    """The courier's statuses of a consignment."""

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
    """An address as the courier's API takes it."""

    recipient: str
    line1: str
    line2: str | None = None
    city: str
    postal_code: str
    country: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Movement:
    """One status of a consignment, and since when."""

    status: Status
    time: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Consignment:
    """A shipment as the courier has it; `reference` is our shipment's id, `version` grows with each movement."""

    id: str
    reference: str
    tracking_number: str
    label_id: str
    weight_grams: int
    status: Status
    version: int
    movements: tuple[Movement, ...]


class Courier:
    """The client of the courier's API."""

    def __init__(self, *, url: str, key: str, timeout: float = 10.0) -> None:
        """Call the API at `url`; each call takes at most `timeout` seconds."""
        self._api = ExternalApi(url=url, key=key, timeout=timeout)

    async def create(self, *, reference: str, address: CourierAddress, weight_grams: int) -> CallResult[Consignment]:
        """Create a consignment. The courier keeps one for each reference: a repeat returns it."""
        body = {"reference": reference, "address": asdict(address), "weight_grams": weight_grams}
        result = await self._api.call("POST", "/v1/consignments", read=consignment_from_json, body=body)
        match result:
            case Ok(consignment) if consignment.reference != reference:
                return Unknown("answer_mismatch")
            case _:
                return result

    async def cancel(self, consignment_id: str) -> CallResult[Consignment]:
        """Cancel a consignment that was not picked up; may be repeated."""
        path = f"/v1/consignments/{quote(consignment_id, safe='')}/cancel"
        return await self._api.call("POST", path, read=consignment_from_json)

    async def get(self, consignment_id: str) -> CallResult[Consignment]:
        """Return a consignment."""
        path = f"/v1/consignments/{quote(consignment_id, safe='')}"
        return await self._api.call("GET", path, read=consignment_from_json)

    async def find_by_reference(self, reference: str) -> CallResult[Consignment | None]:
        """Return the consignment of this reference; None when no request to create one has arrived (yet)."""
        params = {"reference": reference}
        return await self._api.call("GET", "/v1/consignments", read=_first_consignment, params=params)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.aclose()


def consignment_from_json(data: Mapping[str, Any]) -> Consignment:
    """Return the consignment of an answer or a webhook; raises KeyError, TypeError or ValueError for anything else."""
    return Consignment(
        id=field(data, "id", str),
        reference=field(data, "reference", str),
        tracking_number=field(data, "tracking_number", str),
        label_id=field(data, "label_id", str),
        weight_grams=field(data, "weight_grams", int),
        status=Status(field(data, "status", str)),
        version=field(data, "version", int),
        movements=tuple(_movement(movement) for movement in field(data, "movements", list)),
    )


def _movement(data: Mapping[str, Any]) -> Movement:
    time = datetime.fromisoformat(field(data, "create_time", str))
    return Movement(status=Status(field(data, "status", str)), time=time)


def _first_consignment(data: Mapping[str, Any]) -> Consignment | None:
    return next((consignment_from_json(consignment) for consignment in field(data, "data", list)), None)
