"""One shopper, and what one does in a shop: look around, buy, think better of it, receive a parcel."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Any

from mesh.qa.load.history import History
from mesh.qa.shop_client import Refused, Shopfront, Unknown, new_key, state

_TRIES = 40
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_ROAD = ("PICKED_UP", "IN_TRANSIT", "OUT_FOR_DELIVERY", "DELIVERED")
#: Words that make the payment provider lose answers, repeat itself or be early; in the end the money is promised.
_TROUBLES = (
    "tok_500_then_charged",
    "tok_webhook_first",
    "tok_duplicate_webhook",
    "tok_slow_300",
    "tok_capture_slow_300",
)
_ADDRESSES = (
    ("bangkok", {"line1": "88 Charoen Krung Road", "city": "Bangkok", "postalCode": "10500"}),
    ("chiang-mai", {"line1": "12 Nimmanhaemin Road", "city": "Chiang Mai", "postalCode": "50200"}),
    ("phuket", {"line1": "5 Dibuk Road", "city": "Phuket", "postalCode": "83000"}),
    ("", {"line1": "7 Mittraphap Road", "city": "Khon Kaen", "postalCode": "40000"}),
)


@dataclass(frozen=True, slots=True)
class Goods:
    """What there is to buy, and when it can be brought."""

    products: Sequence[dict[str, Any]]
    #: By zone.
    slots: dict[str, list[str]]

    @classmethod
    async def look(cls, shop: Shopfront) -> "Goods":
        """A few pages of products, and the slots of every zone."""
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
        """One to three lines."""
        chosen = random.sample(self.products, k=min(random.randint(1, 3), len(self.products)))
        return [
            {"sku": random.choice(product["variants"])["sku"], "quantity": random.randint(1, 2)} for product in chosen
        ]


@dataclass(slots=True)
class Shopper:
    """Does one thing after another. Staff and courier do their part for those who receive parcels."""

    shop: Shopfront
    staff: Shopfront
    courier: Shopfront
    goods: Goods
    history: History
    random: Random

    async def browse(self) -> None:
        product = self.random.choice(self.goods.products)
        category = product["categoryIds"][0] if product["categoryIds"] else ""
        await self._read("list", "/v1/products", pageSize=20, categoryId=category)
        await self._read("product", f"/v1/products/{product['productId']}")
        await self._read("stock", f"/v1/stock/{product['variants'][0]['sku']}")

    async def buy(self) -> None:
        await self._order("tok_ok")

    async def buy_with_trouble(self) -> None:
        await self._order(self.random.choice(_TROUBLES))

    async def be_declined(self) -> None:
        await self._order(self.random.choice(("tok_declined", "tok_insufficient_funds")))

    async def buy_and_cancel(self) -> None:
        if order := await self._order("tok_ok"):
            path = f"/v1/orders/{order['orderId']}/cancel"
            await self._insist("cancel", self.shop, path, {"requestId": new_key()})

    async def buy_and_receive(self) -> None:
        order = await self._order("tok_ok")
        if order is None or state(order) != "CONFIRMED":
            return
        wanted = {"orderId": order["orderId"], "requestId": new_key()}
        shipment = await self._insist("ship", self.staff, "/v1/shipments", wanted)
        if shipment is None or state(shipment) != "LABELLED":
            return
        path = f"/v1/shipments/{shipment['shipmentId']}/status"
        for step in _ROAD:
            move = {"state": f"SHIPMENT_STATE_{step}", "requestId": new_key()}
            if await self._insist("deliver", self.courier, path, move) is None:
                return

    async def _order(self, payment_method: str) -> dict[str, Any] | None:
        zone, address = self.random.choice(_ADDRESSES)
        slots = self.goods.slots.get(zone, [])
        lines = self.goods.basket(self.random)
        body = {
            "lines": lines,
            "currencyCode": "THB",
            "shippingAddress": {"recipient": "Shopper", "countryCode": "TH"} | address,
            "slotId": self.random.choice(slots) if slots and self.random.random() < 0.7 else "",
            "paymentMethodToken": payment_method,
            "requestId": new_key(),
        }
        return await self._insist("order", self.shop, "/v1/orders", body)

    async def _insist(self, kind: str, shop: Shopfront, path: str, body: dict[str, Any]) -> dict[str, Any] | None:
        """Repeat the request until its outcome is known; None when it was refused, or never became known."""
        pause = _FIRST_PAUSE
        for _ in range(_TRIES):
            try:
                return await self.history.record(kind, shop.post(path, body), key=body["requestId"])
            except Refused:
                return None
            except Unknown:
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
        return None

    async def _read(self, kind: str, path: str, **query: str | int) -> None:
        with suppress(Refused, Unknown):  # it is in the history
            await self.history.record(kind, self.shop.get(path, **query))


class Mix(StrEnum):
    """What shoppers do."""

    shop = "shop"
    browse = "browse"
    checkout = "checkout"
    deliver = "deliver"
    trouble = "trouble"


#: What a mix is made of, and in which shares.
MIXES: Mapping[Mix, Mapping[Callable[[Shopper], Awaitable[None]], int]] = {
    Mix.shop: {
        Shopper.browse: 55,
        Shopper.buy: 30,
        Shopper.be_declined: 5,
        Shopper.buy_and_cancel: 5,
        Shopper.buy_and_receive: 5,
    },
    Mix.browse: {Shopper.browse: 1},
    Mix.checkout: {Shopper.buy: 1},
    Mix.deliver: {Shopper.buy_and_receive: 1},
    Mix.trouble: {
        Shopper.buy: 2,
        Shopper.buy_with_trouble: 4,
        Shopper.be_declined: 1,
        Shopper.buy_and_cancel: 2,
        Shopper.buy_and_receive: 3,
    },
}
