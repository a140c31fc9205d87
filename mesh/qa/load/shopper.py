"""A shopper, with the requests that actions are made of. Staff and a courier act for it."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from mesh.qa.load.history import History
from mesh.qa.shop_client import OutcomeUnknown, RequestRejected, ShopApiClient, new_key, state

_MAX_ATTEMPTS = 40
_FIRST_BACKOFF, _MAX_BACKOFF = 0.05, 1.0
#: Where sample data has stock of every SKU.
LOCATION = "bangkok"
#: The declined payments of one customer: fewer than svc_payment allows with one payment method.
_MAX_DECLINES = 9
DELIVERY_STATES = ("PICKED_UP", "IN_TRANSIT", "OUT_FOR_DELIVERY", "DELIVERED")

_ADDRESSES = (
    ("bangkok", {"line1": "88 Charoen Krung Road", "city": "Bangkok", "postalCode": "10500"}),
    ("chiang-mai", {"line1": "12 Nimmanhaemin Road", "city": "Chiang Mai", "postalCode": "50200"}),
    ("phuket", {"line1": "5 Dibuk Road", "city": "Phuket", "postalCode": "83000"}),
    ("", {"line1": "7 Mittraphap Road", "city": "Khon Kaen", "postalCode": "40000"}),
)

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Catalog:
    """The products and the delivery slots of the shop."""

    products: Sequence[Message]
    #: The ids of slots by zone.
    slots: dict[str, list[str]]
    #: The product of this load alone, with few units; None where its mix needs none.
    own: Message | None = None

    @classmethod
    async def load(cls, shop: ShopApiClient, own: Message | None = None) -> "Catalog":
        """Load a few pages of products, and the slots of every zone."""
        products: list[Message] = []
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
        return cls(products, slots, own)

    def basket(self, random: Random) -> list[Message]:
        """Return one to three order lines."""
        chosen = random.sample(self.products, k=min(random.randint(1, 3), len(self.products)))
        return [
            {"sku": random.choice(product["variants"])["sku"], "quantity": random.randint(1, 2)} for product in chosen
        ]


@dataclass(frozen=True, slots=True)
class Crew:
    """Those who work for the shop."""

    staff: ShopApiClient
    admin: ShopApiClient
    courier: ShopApiClient
    courier_id: str


@dataclass(slots=True)
class Shopper:
    """One shopper, whose requests follow each other."""

    name: str
    shop: ShopApiClient
    crew: Crew
    catalog: Catalog
    history: History
    random: Random
    #: Registers a customer of a name.
    register: Callable[[str], Awaitable[ShopApiClient]]
    #: Who orders for this shopper with payment methods that are declined, and how often.
    _declined: "Shopper | None" = None
    _declines: int = 0

    def saw(self, what: str) -> None:
        """Count something that happened, for the summary."""
        self.history.seen[what] += 1

    async def order(self, payment_method: str, lines: list[Message] | None = None, **changes: Any) -> Message | None:
        """Place an order."""
        zone, address = self.random.choice(_ADDRESSES)
        slots = self.catalog.slots.get(zone, [])
        body = {
            "lines": lines or self.catalog.basket(self.random),
            "currencyCode": "THB",
            "shippingAddress": {"recipient": "Shopper", "countryCode": "TH"} | address,
            "slotId": self.random.choice(slots) if slots and self.random.random() < 0.7 else "",
            "paymentMethodToken": payment_method,
        }
        return await self.post("order", self.shop, "/v1/orders", body | changes)

    async def order_declined(self, token: str, **changes: Any) -> tuple["Shopper", Message | None]:
        """Place an order with a declined payment method as another customer; return who it is, and the order.

        svc_payment limits the declines of each customer and of each method.
        """
        if self._declined is None or self._declines == _MAX_DECLINES:
            name = f"{self.name}-{new_key()}"
            try:
                shop = await self.register(name)
            except (RequestRejected, OutcomeUnknown):
                return self, None
            self._declined, self._declines = replace(self, name=name, shop=shop), 0
        self._declines += 1
        customer = self._declined
        return customer, await customer.order(f"{token}-{customer.name}", **changes)

    async def cancel(self, order: Message) -> Message | None:
        """Cancel an order."""
        return await self.post("cancel", self.shop, f"/v1/orders/{order['orderId']}/cancel", {})

    async def ship(self, payment_method: str = "tok_ok") -> tuple[Message, Message] | None:
        """Place an order and have it shipped; return it with its shipment."""
        order = await self.order(payment_method)
        if order is None or state(order) != "CONFIRMED":
            return None
        shipment = await self.create_shipment(order)
        return (order, shipment) if shipment else None

    async def create_shipment(self, order: Message) -> Message | None:
        """Have an order shipped, and assign its shipment to the courier."""
        shipment = await self.post("ship", self.crew.staff, "/v1/shipments", {"orderId": order["orderId"]})
        if shipment is None or state(shipment) != "LABELLED":
            return None
        path, courier = f"/v1/shipments/{shipment['shipmentId']}/assign", {"courierId": self.crew.courier_id}
        return await self.post("assign", self.crew.staff, path, courier)

    async def move(self, shipment: Message, *states: str) -> bool:
        """Move a parcel as the courier does; return whether it made every move."""
        path = f"/v1/shipments/{shipment['shipmentId']}/status"
        for step in states:
            if await self.post("deliver", self.crew.courier, path, {"state": f"SHIPMENT_STATE_{step}"}) is None:
                return False
        return True

    async def receive(self, payment_method: str = "tok_ok") -> Message | None:
        """Place an order that is delivered; return it."""
        shipped = await self.ship(payment_method)
        return shipped[0] if shipped and await self.move(shipped[1], *DELIVERY_STATES) else None

    async def read_order(self, order: Message) -> Message | None:
        """Read an order of this shopper; return None when there was no answer."""
        order_id = order["orderId"]
        return await self.read("get_order", f"/v1/orders/{order_id}", order_id=order_id)

    async def await_order(self, order: Message, ready: Callable[[Message], bool]) -> Message | None:
        """Read an order until it is as expected; return None when it stays otherwise."""
        return await self.wait_for(lambda: self.read_order(order), ready)

    async def wait_for(self, read: Callable[[], Any], ready: Callable[[Message], bool]) -> Message | None:
        """Read until the answer is as expected; return None when it stays otherwise."""
        backoff = _FIRST_BACKOFF
        for _ in range(_MAX_ATTEMPTS):
            found: Message | None = await read()
            if found is not None and ready(found):
                return found
            await asyncio.sleep(backoff)
            backoff = min(2 * backoff, _MAX_BACKOFF)
        return None

    async def post(self, kind: str, shop: ShopApiClient, path: str, body: Message) -> Message | None:
        """Repeat the request until its outcome is known; return None when it was rejected or stayed unknown."""
        body = body | {"requestId": new_key()}
        return await self._until_known(kind, lambda: shop.post(path, body), shop, body["requestId"])

    async def put(self, kind: str, shop: ShopApiClient, path: str, body: Message) -> Message | None:
        """Do the same by PUT, whose key is in the query."""
        key = new_key()
        return await self._until_known(kind, lambda: shop.put(f"{path}?requestId={key}", body), shop, key)

    async def read(
        self, kind: str, path: str, shop: ShopApiClient | None = None, *, order_id: str = "", **query: str | int
    ) -> Message | None:
        """Read as this shopper, or as another; return None when there was no answer."""
        with suppress(RequestRejected, OutcomeUnknown):  # recorded in the history
            request = (shop or self.shop).get(path, **query)
            return await self.history.record(kind, request, session=self.name, order_id=order_id)
        return None

    async def _until_known(
        self, kind: str, request: Callable[[], Any], shop: ShopApiClient, key: str
    ) -> Message | None:
        session = self.name if shop is self.shop else f"{self.name}-{kind}"
        backoff = _FIRST_BACKOFF
        for _ in range(_MAX_ATTEMPTS):
            try:
                return await self.history.record(kind, request(), key, session=session)
            except RequestRejected:
                return None
            except OutcomeUnknown:
                await asyncio.sleep(backoff)
                backoff = min(2 * backoff, _MAX_BACKOFF)
        return None
