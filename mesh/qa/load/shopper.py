"""A shopper and its actions: browse, buy, cancel, receive a parcel, send it back."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any

from mesh.qa.load.history import History
from mesh.qa.shop_client import OutcomeUnknown, RequestRejected, ShopApiClient, new_key, state

_MAX_ATTEMPTS = 40
_FIRST_BACKOFF, _MAX_BACKOFF = 0.05, 1.0
#: Where sample data has stock of every SKU.
_LOCATION = "bangkok"
_DELIVERY_STATES = ("PICKED_UP", "IN_TRANSIT", "OUT_FOR_DELIVERY", "DELIVERED")
#: Tokens with a fault of the payment provider after which the payment is authorized nevertheless.
_FAULT_TOKENS = (
    "tok_500_then_charged",
    "tok_webhook_first",
    "tok_duplicate_webhook",
    "tok_slow_300",
    "tok_capture_slow_300",
    "tok_3ds_confirmed",
    "tok_dispute_won",
)
#: Tokens of payments that end without an authorization: declined, not confirmed, or not confirmed in time.
_DECLINED_TOKENS = ("tok_declined", "tok_insufficient_funds", "tok_3ds_refused", "tok_3ds_expired")

_ADDRESSES = (
    ("bangkok", {"line1": "88 Charoen Krung Road", "city": "Bangkok", "postalCode": "10500"}),
    ("chiang-mai", {"line1": "12 Nimmanhaemin Road", "city": "Chiang Mai", "postalCode": "50200"}),
    ("phuket", {"line1": "5 Dibuk Road", "city": "Phuket", "postalCode": "83000"}),
    ("", {"line1": "7 Mittraphap Road", "city": "Khon Kaen", "postalCode": "40000"}),
)


@dataclass(frozen=True, slots=True)
class Catalog:
    """The products and the delivery slots of the shop."""

    products: Sequence[dict[str, Any]]
    #: The ids of slots by zone.
    slots: dict[str, list[str]]

    @classmethod
    async def load(cls, shop: ShopApiClient) -> "Catalog":
        """Load a few pages of products, and the slots of every zone."""
        products: list[dict[str, Any]] = []
        token = ""
        for _ in range(4):
            page = await shop.get("/v1/products", pageSize=100, pageToken=token)
            products += page["products"]
            if not (token := page["nextPageToken"]):
                break
        zones = (await shop.get("/v1/delivery/zones"))["zones"]
        slots = {}
        for zone in zones:
            found = await shop.get("/v1/delivery/slots", zoneId=zone["zoneId"], pageSize=100)
            slots[zone["zoneId"]] = [slot["slotId"] for slot in found["slots"]]
        return cls(products, slots)

    def basket(self, random: Random) -> list[dict[str, Any]]:
        """Return one to three order lines."""
        chosen = random.sample(self.products, k=min(random.randint(1, 3), len(self.products)))
        return [
            {"sku": random.choice(product["variants"])["sku"], "quantity": random.randint(1, 2)} for product in chosen
        ]


@dataclass(slots=True)
class Shopper:
    """One shopper; staff and courier act for those that receive parcels."""

    shop: ShopApiClient
    staff: ShopApiClient
    courier: ShopApiClient
    courier_id: str
    catalog: Catalog
    history: History
    random: Random

    async def browse(self) -> None:
        """Read a list, a product and its stock."""
        product = self.random.choice(self.catalog.products)
        category = product["categoryIds"][0] if product["categoryIds"] else ""
        await self._read("list", "/v1/products", pageSize=20, categoryId=category)
        await self._read("product", f"/v1/products/{product['productId']}")
        await self._read("stock", f"/v1/stock/{product['variants'][0]['sku']}")

    async def buy(self) -> None:
        """Place an order."""
        await self._order("tok_ok")

    async def buy_with_fault(self) -> None:
        """Place an order whose payment meets a fault."""
        await self._order(self.random.choice(_FAULT_TOKENS))

    async def buy_with_declined_card(self) -> None:
        """Place an order whose payment is declined."""
        await self._order(self.random.choice(_DECLINED_TOKENS))

    async def buy_and_cancel(self) -> None:
        """Place an order and cancel it."""
        if order := await self._order("tok_ok"):
            path = f"/v1/orders/{order['orderId']}/cancel"
            await self._post_until_known("cancel", self.shop, path, {"requestId": new_key()})

    async def buy_and_receive(self) -> None:
        """Place an order, which staff ships and the courier delivers."""
        await self._receive(self.random.choice(("tok_ok", "tok_dispute_won")))

    async def buy_and_return(self) -> None:
        """Receive an order and return all of it, which staff approves, receives and refunds."""
        order = await self._receive()
        if order is None or not await self._await_order(order, lambda now: state(now) == "DELIVERED"):
            return
        lines = [{"sku": line["sku"], "quantity": line["quantity"]} for line in order["lines"]]
        body = {"lines": lines, "reason": "RETURN_REASON_NOT_WANTED", "requestId": new_key()}
        path = f"/v1/orders/{order['orderId']}/returns"
        wanted = await self._post_until_known("return", self.shop, path, body)
        if wanted is None:
            return
        path = f"/v1/returns/{wanted['returnId']}/approve"
        if await self._post_until_known("approve", self.staff, path, {"requestId": new_key()}):
            await self._receive_return(wanted)

    async def buy_and_refuse_parcel(self) -> None:
        """Place an order whose parcel comes back undelivered; staff receives and refunds it."""
        shipped = await self._ship()
        if shipped is None or not await self._move(shipped[1], "PICKED_UP", "FAILED", "RETURNED"):
            return
        order = shipped[0]
        if await self._await_order(order, lambda now: state(now) == "RETURN_REQUESTED"):
            found = await self.shop.get("/v1/returns", orderId=order["orderId"])
            await self._receive_return(found["returns"][0])

    async def buy_and_fail_to_ship(self) -> None:
        """Place an order whose shipment fails before it is picked up; cancel it, or ship it again."""
        shipped = await self._ship()
        if shipped is None or not await self._move(shipped[1], "FAILED"):
            return
        order = shipped[0]
        if not await self._await_order(order, lambda now: not now["shipmentId"]):
            return
        if self.random.random() < 0.5:
            path = f"/v1/orders/{order['orderId']}/cancel"
            await self._post_until_known("cancel", self.shop, path, {"requestId": new_key()})
        elif again := await self._create_shipment(order):
            await self._move(again, *_DELIVERY_STATES)

    async def _receive(self, payment_method: str = "tok_ok") -> dict[str, Any] | None:
        shipped = await self._ship(payment_method)
        return shipped[0] if shipped and await self._move(shipped[1], *_DELIVERY_STATES) else None

    async def _ship(self, payment_method: str = "tok_ok") -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Place an order and have it shipped; return it with its shipment."""
        order = await self._order(payment_method)
        if order is None or state(order) != "CONFIRMED":
            return None
        shipment = await self._create_shipment(order)
        return (order, shipment) if shipment else None

    async def _create_shipment(self, order: dict[str, Any]) -> dict[str, Any] | None:
        """Have an order shipped, and assign its shipment to the courier."""
        wanted = {"orderId": order["orderId"], "requestId": new_key()}
        shipment = await self._post_until_known("ship", self.staff, "/v1/shipments", wanted)
        if shipment is None or state(shipment) != "LABELLED":
            return None
        path = f"/v1/shipments/{shipment['shipmentId']}/assign"
        assignment = {"courierId": self.courier_id, "requestId": new_key()}
        return await self._post_until_known("assign", self.staff, path, assignment)

    async def _move(self, shipment: dict[str, Any], *states: str) -> bool:
        """Move a parcel as the courier does; return whether it made every move."""
        path = f"/v1/shipments/{shipment['shipmentId']}/status"
        for step in states:
            move = {"state": f"SHIPMENT_STATE_{step}", "requestId": new_key()}
            if await self._post_until_known("deliver", self.courier, path, move) is None:
                return False
        return True

    async def _receive_return(self, wanted: dict[str, Any]) -> None:
        lines = [
            {"sku": line["sku"], "restocked": line["quantity"], "locationId": _LOCATION} for line in wanted["lines"]
        ]
        path = f"/v1/returns/{wanted['returnId']}/receive"
        await self._post_until_known("receive", self.staff, path, {"lines": lines, "requestId": new_key()})

    async def _await_order(self, order: dict[str, Any], ready: Callable[[dict[str, Any]], bool]) -> bool:
        """Read an order until it is as expected; return False when it stays otherwise."""
        backoff = _FIRST_BACKOFF
        for _ in range(_MAX_ATTEMPTS):
            with suppress(RequestRejected, OutcomeUnknown):
                if ready(await self.shop.get(f"/v1/orders/{order['orderId']}")):
                    return True
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, _MAX_BACKOFF)
        return False

    async def _order(self, payment_method: str) -> dict[str, Any] | None:
        zone, address = self.random.choice(_ADDRESSES)
        slots = self.catalog.slots.get(zone, [])
        lines = self.catalog.basket(self.random)
        body = {
            "lines": lines,
            "currencyCode": "THB",
            "shippingAddress": {"recipient": "Shopper", "countryCode": "TH"} | address,
            "slotId": self.random.choice(slots) if slots and self.random.random() < 0.7 else "",
            "paymentMethodToken": payment_method,
            "requestId": new_key(),
        }
        return await self._post_until_known("order", self.shop, "/v1/orders", body)

    async def _post_until_known(
        self, kind: str, shop: ShopApiClient, path: str, body: dict[str, Any]
    ) -> dict[str, Any] | None:
        """Repeat the request until its outcome is known; return None when it was rejected or stayed unknown."""
        backoff = _FIRST_BACKOFF
        for _ in range(_MAX_ATTEMPTS):
            try:
                return await self.history.record(kind, shop.post(path, body), key=body["requestId"])
            except RequestRejected:
                return None
            except OutcomeUnknown:
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, _MAX_BACKOFF)
        return None

    async def _read(self, kind: str, path: str, **query: str | int) -> None:
        with suppress(RequestRejected, OutcomeUnknown):  # recorded in the history
            await self.history.record(kind, self.shop.get(path, **query))


class Mix(StrEnum):
    """The mixes of actions."""

    shop = "shop"
    browse = "browse"
    checkout = "checkout"
    deliver = "deliver"
    faults = "faults"
    trouble = "trouble"


#: The actions of each mix with their weights.
MIXES: Mapping[Mix, Mapping[Callable[[Shopper], Awaitable[None]], int]] = {
    Mix.shop: {
        Shopper.browse: 55,
        Shopper.buy: 30,
        Shopper.buy_with_declined_card: 5,
        Shopper.buy_and_cancel: 5,
        Shopper.buy_and_receive: 5,
    },
    Mix.browse: {Shopper.browse: 1},
    Mix.checkout: {Shopper.buy: 1},
    Mix.deliver: {Shopper.buy_and_receive: 1},
    Mix.faults: {
        Shopper.buy: 2,
        Shopper.buy_with_fault: 4,
        Shopper.buy_with_declined_card: 1,
        Shopper.buy_and_cancel: 2,
        Shopper.buy_and_receive: 3,
    },
    Mix.trouble: {
        Shopper.buy_with_fault: 2,
        Shopper.buy_and_cancel: 1,
        Shopper.buy_and_receive: 1,
        Shopper.buy_and_return: 2,
        Shopper.buy_and_refuse_parcel: 2,
        Shopper.buy_and_fail_to_ship: 2,
    },
}
