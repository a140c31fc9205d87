"""The purchase, through the JSON edge; the parcel is moved through the courier's own API."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from mesh.errors import StackError
from mesh.qa.demo.story import Chart, Line, Part, Step
from mesh.qa.sample_data.people import Person
from mesh.qa.shop_client import RequestRejected, ShopApiClient, amount, new_key, state
from mesh.qa.simulator_client import SimulatorClient

_ADDRESS = {
    "recipient": "Malee Srisai",
    "phone": "+66 81 234 5678",
    "line1": "88 Charoen Krung Road",
    "city": "Bangkok",
    "postalCode": "10500",
    "countryCode": "TH",
}
_PASSWORD = "correct-horse-battery"  # noqa: S105  of an account that the demo creates
_QUERY = "coffee beans"
_QUANTITY = 2
_DELIVERY_STATES = ("PICKED_UP", "IN_TRANSIT", "OUT_FOR_DELIVERY", "DELIVERED")
_WAIT_SECONDS = 15.0

T = TypeVar("T")


class Purchase:
    """The steps of a purchase, and the objects that they create."""

    def __init__(
        self, anonymous: ShopApiClient, staff: Person, payment_provider: SimulatorClient, courier: SimulatorClient
    ) -> None:
        self._anonymous = anonymous
        self._staff = staff
        self._payment_provider = payment_provider
        self._courier = courier
        self._shop = anonymous
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
        """Return the steps in order. Each raises StackError when the shop does not behave as expected."""
        return (
            Step("Register", self._register),
            Step("Sign in", self._sign_in),
            Step("Browse", self._browse),
            Step("Preview the price", self._preview),
            Step("Order", self._buy),
            Step("The saga of the order", self._show_saga),
            Step("Staff ships the order", self._ship),
            Step("The courier delivers it", self._deliver),
            Step("The payment", self._show_payment),
            Step("The timeline of the order", self._show_timeline),
        )

    async def _register(self) -> AsyncIterator[Part]:
        account = {"email": self._email, "password": _PASSWORD, "displayName": "Malee", "requestId": new_key()}
        user, seconds = await _timed(self._anonymous.post("/v1/auth/register", account))
        _expect(user["roles"] == ["customer"], f"a new account has the roles {user['roles']}")
        yield Line(f"{user['email']} is registered", seconds)

    async def _sign_in(self) -> AsyncIterator[Part]:
        self._shop, seconds = await _timed(self._anonymous.sign_in(self._email, _PASSWORD))
        yield Line("an access token, which every service verifies by itself", seconds)

    async def _browse(self) -> AsyncIterator[Part]:
        found, seconds = await _timed(self._shop.get("/v1/products", query=_QUERY, pageSize=20))
        yield Line(f'"{_QUERY}" finds {len(found["products"])} products', seconds)
        for product in found["products"]:
            self._product, self._sku = product, product["variants"][0]["sku"]
            stock, seconds = await _timed(self._shop.get(f"/v1/stock/{self._sku}"))
            if stock["available"] >= _QUANTITY:
                break
        else:
            raise StackError(f'no "{_QUERY}" can be bought', fix="run `shopmesh sample-data`")
        self._stock = stock["available"]
        prices = ", ".join(
            f"{' '.join(one['attributes'].values())} {amount(one['price'])}" for one in self._product["variants"]
        )
        yield Line(f"{self._product['name']} by {self._product['brand']}")
        yield Line(prices)
        places = ", ".join(f"{at['available']} in {at['locationId']}" for at in stock["locations"])
        yield Line(f"{self._stock} of the first in stock: {places}", seconds)

    async def _preview(self) -> AsyncIterator[Part]:
        cart = {"lines": self._lines, "currencyCode": "THB", "shippingAddress": _ADDRESS}
        preview, seconds = await _timed(self._shop.post("/v1/orders:preview", cart))
        _expect(not preview["shortSkus"], f"not enough stock of {preview['shortSkus']}")
        self._total = preview["total"]
        yield Line(f"{_QUANTITY} for {amount(preview['subtotal'])}, delivery {amount(preview['shippingFee'])}")
        yield Line(f"{amount(self._total)} in total, including tax of {amount(preview['taxTotal'])}", seconds)
        slots = await self._shop.get("/v1/delivery/slots", countryCode="TH", postalCode=_ADDRESS["postalCode"])
        if slots["slots"]:
            self._slot = slots["slots"][0]
            begins, ends = (self._slot[name].replace("T", " ")[:16] for name in ("startTime", "endTime"))
            yield Line(f"delivered from {begins} to {ends[11:]} UTC; {self._slot['available']} places left")

    async def _buy(self) -> AsyncIterator[Part]:
        request = {
            "lines": self._lines,
            "currencyCode": "THB",
            "shippingAddress": _ADDRESS,
            "slotId": self._slot.get("slotId", ""),
            "paymentMethodToken": "tok_ok",
            "expectedTotal": self._total,
            "requestId": new_key(),
        }
        self.order, seconds = await _timed(self._shop.post("/v1/orders", request))
        yield Line(f"{self.order['orderId']}")
        yield Line(f"the reply is {state(self.order)}", seconds)
        again = await self._shop.post("/v1/orders", request)
        _expect(again["orderId"] == self.order["orderId"], "a repeated request created a second order")
        yield Line("repeated with the same key: the same order")
        async for line in self._watch_until("CONFIRMED"):
            yield line

    async def _show_saga(self) -> AsyncIterator[Part]:
        yield Chart((await self._read_timeline("confirm_reservation"))["steps"])
        stock = await self._shop.get(f"/v1/stock/{self._sku}")
        yield Line(f"{stock['available']} are available now, {self._stock} were before")

    async def _ship(self) -> AsyncIterator[Part]:
        staff_client = await self._anonymous.sign_in(self._staff.email, self._staff.password)
        request = {"orderId": self.order["orderId"], "requestId": new_key()}
        self.shipment, seconds = await _timed(staff_client.post("/v1/shipments", request))
        yield Line(f"{self.shipment['shipmentId']}", seconds)
        await self._wait_for_parcel("LABELLED")
        yield Line(f"{state(self.shipment)}: tracking number {self.shipment['trackingNumber']}")
        with suppress(RequestRejected):
            await self._shop.post(f"/v1/orders/{self.order['orderId']}/cancel", {"requestId": new_key()})
            raise StackError("the order could be cancelled during its shipment")
        yield Line("it cannot be cancelled any more: the shop rejects the request")

    async def _deliver(self) -> AsyncIterator[Part]:
        found = await self._courier.get("/v1/consignments", reference=self.shipment["shipmentId"])
        consignment = found["data"][0]["id"]
        for to in _DELIVERY_STATES:
            began = time.perf_counter()
            await self._courier.post(f"/v1/consignments/{consignment}/advance", {"to": to})
            await self._wait_for_parcel(to)
            yield Line(f"{to}, reported by a signed webhook", time.perf_counter() - began)
            if to == "PICKED_UP":
                async for line in self._watch_until("SHIPPED"):
                    yield line
        async for line in self._watch_until("DELIVERED"):
            yield line

    async def _show_payment(self) -> AsyncIterator[Part]:
        self.payment = await self._shop.get(f"/v1/payments/{self.order['paymentId']}")
        for entry in self.payment["transactions"]:
            if entry["outcome"] == "TRANSACTION_OUTCOME_SUCCESS":
                kind = entry["kind"].removeprefix("TRANSACTION_KIND_").lower()
                yield Line(f"{kind:14} {amount(entry['amount'])}")
        card = self.payment["method"]
        yield Line(f"{state(self.payment)} from {card['cardBrand']} ending in {card['cardLast4']}")
        _expect(self.payment["capturedAmount"] == self._total, f"{self.payment['capturedAmount']} was captured")
        ledger = await self._payment_provider.get("/v1/payments", reference=self.order["paymentId"])
        theirs, ours = ledger["data"][0]["amount_captured"], _minor(self._total)
        _expect(theirs == ours, f"the provider has captured {theirs} minor units, the shop {ours}")
        yield Line("the ledger of the payment provider agrees")

    async def _show_timeline(self) -> AsyncIterator[Part]:
        self.timeline = await self._read_timeline("fulfill_reservation")
        for move in self.timeline["transitions"]:
            yield Line(f"{move['createTime'][11:23]}  {state(move, 'toState')}")
        yield Chart(self.timeline["steps"])

    @property
    def _lines(self) -> list[dict[str, Any]]:
        return [{"sku": self._sku, "quantity": _QUANTITY}]

    async def _watch_until(self, expected: str) -> AsyncIterator[Line]:
        """Watch the order until it has the expected state."""
        began, seen = time.perf_counter(), ""
        async with aclosing(self._shop.watch(f"/v1/orders/{self.order['orderId']}/watch")) as messages:
            while state(self.order) != expected or not seen:
                left = began + _WAIT_SECONDS - time.perf_counter()
                try:
                    self.order = (await asyncio.wait_for(anext(messages), left))["order"]
                except (TimeoutError, StopAsyncIteration):
                    break
                now = f"{state(self.order)}, {state(self.order, 'paymentState')}"
                if now != seen:
                    yield Line(f"live: the order is {now}", time.perf_counter() - began)
                    seen = now
        found = state(self.order)
        _expect(found == expected, f"the order is {found} {self.order['stateReason']}, not {expected}")

    async def _wait_for_parcel(self, expected: str) -> None:
        path = f"/v1/shipments/{self.shipment['shipmentId']}"
        self.shipment = await _poll(lambda: self._shop.get(path), lambda one: state(one) == expected)
        _expect(state(self.shipment) == expected, f"the parcel is {state(self.shipment)}, not {expected}")

    async def _read_timeline(self, last: str) -> dict[str, Any]:
        """Return the timeline of the order when this step of its saga is done."""

        def is_done(timeline: dict[str, Any]) -> bool:
            return any(step["name"] == last and state(step) == "DONE" for step in timeline["steps"])

        timeline = await _poll(lambda: self._shop.get(f"/v1/orders/{self.order['orderId']}/timeline"), is_done)
        _expect(is_done(timeline), f"the saga has not completed {last}")
        return timeline


async def _timed(work: Awaitable[T]) -> tuple[T, float]:
    began = time.perf_counter()
    return await work, time.perf_counter() - began


async def _poll(
    read: Callable[[], Awaitable[dict[str, Any]]], holds: Callable[[dict[str, Any]], bool]
) -> dict[str, Any]:
    """Return the first reply for which `holds` is true, or the last one at the deadline."""
    until = time.monotonic() + _WAIT_SECONDS
    while not holds(found := await read()) and time.monotonic() < until:  # noqa: ASYNC110  there is no notification
        await asyncio.sleep(0.03)
    return found


def _expect(fact: object, problem: str) -> None:
    if not fact:
        raise StackError(problem, fix="see `shopmesh verify` and `shopmesh logs`")


def _minor(money: dict[str, Any]) -> int:
    return int(money["units"]) * 100 + int(money["nanos"]) // 10_000_000
