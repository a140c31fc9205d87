"""A shopper and its actions: browse, buy, cancel, receive a parcel."""

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
        order = await self._order(self.random.choice(("tok_ok", "tok_dispute_won")))
        if order is None or state(order) != "CONFIRMED":
            return
        wanted = {"orderId": order["orderId"], "requestId": new_key()}
        shipment = await self._post_until_known("ship", self.staff, "/v1/shipments", wanted)
        if shipment is None or state(shipment) != "LABELLED":
            return
        path = f"/v1/shipments/{shipment['shipmentId']}/status"
        for step in _DELIVERY_STATES:
            move = {"state": f"SHIPMENT_STATE_{step}", "requestId": new_key()}
            if await self._post_until_known("deliver", self.courier, path, move) is None:
                return

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
}
