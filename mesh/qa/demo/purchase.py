"""The purchase itself, through the JSON edge; only what the courier does with the parcel is done at the courier's."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from mesh.errors import StackError
from mesh.qa.demo.story import Chart, Line, Part, Step
from mesh.qa.sample_data.people import Person
from mesh.qa.shop_client import Refused, Shopfront, amount, new_key, state
from mesh.qa.simulator_client import Partner

_ADDRESS = {
    "recipient": "Malee Srisai",
    "phone": "+66 81 234 5678",
    "line1": "88 Charoen Krung Road",
    "city": "Bangkok",
    "postalCode": "10500",
    "countryCode": "TH",
}
_PASSWORD = "correct-horse-battery"  # noqa: S105  of an account that is made up here and now
_WANTED = "coffee beans"
_QUANTITY = 2
_ROAD = ("PICKED_UP", "IN_TRANSIT", "OUT_FOR_DELIVERY", "DELIVERED")
_PATIENCE = 15.0

T = TypeVar("T")


class Purchase:
    """Walks through the shop step by step, and keeps what was learned on the way."""

    def __init__(self, door: Shopfront, staff: Person, payment_provider: Partner, courier: Partner) -> None:
        self._door = door
        self._staff = staff
        self._payment_provider = payment_provider
        self._courier = courier
        self._shop = door
        self._product: dict[str, Any] = {}
        self._sku = ""
        self._stock = 0
        self._slot: dict[str, Any] = {}
        self._total: dict[str, Any] = {}
        self.order: dict[str, Any] = {}
        self.shipment: dict[str, Any] = {}
        self.payment: dict[str, Any] = {}
        self.timeline: dict[str, Any] = {}
        self._email = f"malee.{new_key()[:6]}@example.com"

    def steps(self) -> Sequence[Step]:
        return (
            Step("Register", self._register),
            Step("Sign in", self._sign_in),
            Step("Browse", self._browse),
            Step("Ask what it costs", self._preview),
            Step("Order", self._buy),
            Step("The saga behind it", self._explain),
            Step("Staff ships it", self._ship),
            Step("The courier carries it", self._deliver),
            Step("Where the money is", self._follow_the_money),
            Step("All of it, once more", self._look_back),
        )

    async def _register(self) -> AsyncIterator[Part]:
        account = {"email": self._email, "password": _PASSWORD, "displayName": "Malee", "requestId": new_key()}
        user, seconds = await _timed(self._door.post("/v1/auth/register", account))
        _expect(user["roles"] == ["customer"], f"a new account has the roles {user['roles']}")
        yield Line(f"{user['email']} is a customer now", seconds)

    async def _sign_in(self) -> AsyncIterator[Part]:
        self._shop, seconds = await _timed(self._door.sign_in(self._email, _PASSWORD))
        yield Line("a token that every service verifies by itself", seconds)

    async def _browse(self) -> AsyncIterator[Part]:
        found, seconds = await _timed(self._shop.get("/v1/products", query=_WANTED, pageSize=20))
        yield Line(f'"{_WANTED}" finds {len(found["products"])} products', seconds)
        for product in found["products"]:
            self._product, self._sku = product, product["variants"][0]["sku"]
            stock, seconds = await _timed(self._shop.get(f"/v1/stock/{self._sku}"))
            if stock["available"] >= _QUANTITY:
                break
        else:
            raise StackError(f'no "{_WANTED}" can be bought', fix="run `shopmesh sample-data`")
        self._stock = stock["available"]
        prices = ", ".join(
            f"{' '.join(one['attributes'].values())} {amount(one['price'])}" for one in self._product["variants"]
        )
        yield Line(f"{self._product['name']} by {self._product['brand']}")
        yield Line(prices)
        places = ", ".join(f"{at['available']} in {at['locationId']}" for at in stock["locations"])
        yield Line(f"{self._stock} of the first: {places}", seconds)

    async def _preview(self) -> AsyncIterator[Part]:
        cart = {"lines": self._lines, "currencyCode": "THB", "shippingAddress": _ADDRESS}
        preview, seconds = await _timed(self._shop.post("/v1/orders:preview", cart))
        _expect(not preview["shortSkus"], f"too few of {preview['shortSkus']}")
        self._total = preview["total"]
        yield Line(f"{_QUANTITY} for {amount(preview['subtotal'])}, delivery {amount(preview['shippingFee'])}")
        yield Line(f"{amount(self._total)} in all, tax of {amount(preview['taxTotal'])} included", seconds)
        slots = await self._shop.get("/v1/delivery/slots", countryCode="TH", postalCode=_ADDRESS["postalCode"])
        if slots["slots"]:
            self._slot = slots["slots"][0]
            begins, ends = (self._slot[name].replace("T", " ")[:16] for name in ("startTime", "endTime"))
            yield Line(f"delivered from {begins} to {ends[11:]} UTC; {self._slot['available']} places left")

    async def _buy(self) -> AsyncIterator[Part]:
        wanted = {
            "lines": self._lines,
            "currencyCode": "THB",
            "shippingAddress": _ADDRESS,
            "slotId": self._slot.get("slotId", ""),
            "paymentMethodToken": "tok_ok",
            "expectedTotal": self._total,
            "requestId": new_key(),
        }
        self.order, seconds = await _timed(self._shop.post("/v1/orders", wanted))
        yield Line(f"{self.order['orderId']}")
        yield Line(f"answered {state(self.order)}", seconds)
        again = await self._shop.post("/v1/orders", wanted)
        _expect(again["orderId"] == self.order["orderId"], "the same request made two orders")
        yield Line("sent again under its key: the same order, made once")
        async for line in self._watch_until("CONFIRMED"):
            yield line

    async def _explain(self) -> AsyncIterator[Part]:
        yield Chart((await self._read_timeline("confirm_reservation"))["steps"])
        stock = await self._shop.get(f"/v1/stock/{self._sku}")
        yield Line(f"{stock['available']} can be bought now, {self._stock} could before")

    async def _ship(self) -> AsyncIterator[Part]:
        desk = await self._door.sign_in(self._staff.email, self._staff.password)
        wanted = {"orderId": self.order["orderId"], "requestId": new_key()}
        self.shipment, seconds = await _timed(desk.post("/v1/shipments", wanted))
        yield Line(f"{self.shipment['shipmentId']}", seconds)
        await self._wait_for_parcel("LABELLED")
        yield Line(f"{state(self.shipment)}: the courier calls it {self.shipment['trackingNumber']}")
        with suppress(Refused):
            await self._shop.post(f"/v1/orders/{self.order['orderId']}/cancel", {"requestId": new_key()})
            raise StackError("an order that is being shipped could be cancelled")
        yield Line("it cannot be cancelled any more: the shop refused")

    async def _deliver(self) -> AsyncIterator[Part]:
        found = await self._courier.get("/v1/consignments", reference=self.shipment["shipmentId"])
        consignment = found["data"][0]["id"]
        for to in _ROAD:
            began = time.perf_counter()
            await self._courier.post(f"/v1/consignments/{consignment}/advance", {"to": to})
            await self._wait_for_parcel(to)
            yield Line(f"{to}, told by a signed webhook", time.perf_counter() - began)
            if to == "PICKED_UP":
                async for line in self._watch_until("SHIPPED"):
                    yield line
        async for line in self._watch_until("DELIVERED"):
            yield line

    async def _follow_the_money(self) -> AsyncIterator[Part]:
        self.payment = await self._shop.get(f"/v1/payments/{self.order['paymentId']}")
        for entry in self.payment["transactions"]:
            if entry["outcome"] == "TRANSACTION_OUTCOME_SUCCESS":
                kind = entry["kind"].removeprefix("TRANSACTION_KIND_").lower()
                yield Line(f"{kind:14} {amount(entry['amount'])}")
        card = self.payment["method"]
        yield Line(f"{state(self.payment)} from {card['cardBrand']} ending in {card['cardLast4']}")
        _expect(self.payment["capturedAmount"] == self._total, f"{self.payment['capturedAmount']} was captured")
        book = await self._payment_provider.get("/v1/payments", reference=self.order["paymentId"])
        theirs, ours = book["data"][0]["amount_captured"], _minor(self._total)
        _expect(theirs == ours, f"the provider has captured {theirs} minor units, the shop {ours}")
        yield Line("and the payment provider's own books say the same")

    async def _look_back(self) -> AsyncIterator[Part]:
        self.timeline = await self._read_timeline("fulfill_reservation")
        for move in self.timeline["transitions"]:
            yield Line(f"{move['createTime'][11:23]}  {state(move, 'toState')}")
        yield Chart(self.timeline["steps"])

    @property
    def _lines(self) -> list[dict[str, Any]]:
        return [{"sku": self._sku, "quantity": _QUANTITY}]

    async def _watch_until(self, wanted: str) -> AsyncIterator[Line]:
        """Follow the order live until it is in a state."""
        began, seen = time.perf_counter(), ""
        async with aclosing(self._shop.watch(f"/v1/orders/{self.order['orderId']}/watch")) as messages:
            while state(self.order) != wanted or not seen:
                left = began + _PATIENCE - time.perf_counter()
                try:
                    self.order = (await asyncio.wait_for(anext(messages), left))["order"]
                except (TimeoutError, StopAsyncIteration):
                    break
                now = f"{state(self.order)}, {state(self.order, 'paymentState')}"
                if now != seen:
                    yield Line(f"live: the order is {now}", time.perf_counter() - began)
                    seen = now
        found = state(self.order)
        _expect(found == wanted, f"the order is {found} {self.order['stateReason']}, not {wanted}")

    async def _wait_for_parcel(self, wanted: str) -> None:
        path = f"/v1/shipments/{self.shipment['shipmentId']}"
        self.shipment = await _until(lambda: self._shop.get(path), lambda one: state(one) == wanted)
        _expect(state(self.shipment) == wanted, f"the parcel is {state(self.shipment)}, not {wanted}")

    async def _read_timeline(self, last: str) -> dict[str, Any]:
        """What happened to the order, once this step of its saga is done."""

        def is_done(told: dict[str, Any]) -> bool:
            return any(step["name"] == last and state(step) == "DONE" for step in told["steps"])

        told = await _until(lambda: self._shop.get(f"/v1/orders/{self.order['orderId']}/timeline"), is_done)
        _expect(is_done(told), f"the saga has not done {last}")
        return told


async def _timed(work: Awaitable[T]) -> tuple[T, float]:
    began = time.perf_counter()
    return await work, time.perf_counter() - began


async def _until(
    read: Callable[[], Awaitable[dict[str, Any]]], holds: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """What is read once it holds, or when it has not for too long."""
    until = time.monotonic() + _PATIENCE
    while not holds(found := await read()) and time.monotonic() < until:  # noqa: ASYNC110  others announce it to others
        await asyncio.sleep(0.03)
    return found


def _expect(fact: object, problem: str) -> None:
    if not fact:
        raise StackError(problem, fix="see `shopmesh verify` and `shopmesh logs`")


def _minor(money: dict[str, Any]) -> int:
    return int(money["units"]) * 100 + int(money["nanos"]) // 10_000_000
