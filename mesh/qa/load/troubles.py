"""What goes wrong in a shop: parcels that fail or come back, payments that lapse or are declined, parked sagas.

Each action counts what it has seen happen under a name of SEEN.
"""

from mesh.qa.load.shopper import DELIVERY_STATES, LOCATION, Message, Shopper
from mesh.qa.shop_client import state

#: What every action of this module together must have seen.
SEEN = (
    "order cancelled",
    "order returned",
    "units restocked",
    "units received",
    "payment refunded",
    "parcel came back",
    "shipment failed",
    "shipped again",
    "authorization expired and renewed",
    "payment declined and repeated",
    "slip paid",
    "saga parked",
    "saga retried",
    "price changed",
    "stock sold out",
)


async def buy_and_return(shopper: Shopper) -> None:
    """Receive an order and return all of it, which staff approves, receives and refunds."""
    order = await shopper.receive()
    if order is None or not await shopper.await_order(order, lambda now: state(now) == "DELIVERED"):
        return
    lines = [{"sku": line["sku"], "quantity": line["quantity"]} for line in order["lines"]]
    path = f"/v1/orders/{order['orderId']}/returns"
    wanted = await shopper.post("return", shopper.shop, path, {"lines": lines, "reason": "RETURN_REASON_NOT_WANTED"})
    if wanted is None:
        return
    if await shopper.post("approve", shopper.crew.staff, f"/v1/returns/{wanted['returnId']}/approve", {}):
        await _receive_return(shopper, order, wanted)


async def buy_and_refuse_parcel(shopper: Shopper) -> None:
    """Place an order whose parcel comes back undelivered; staff receives and refunds it."""
    shipped = await shopper.ship()
    if shipped is None or not await shopper.move(shipped[1], "PICKED_UP", "FAILED", "RETURNED"):
        return
    order = shipped[0]
    if await shopper.await_order(order, lambda now: state(now) == "RETURN_REQUESTED"):
        shopper.saw("parcel came back")
        found = await shopper.read("returns", "/v1/returns", orderId=order["orderId"])
        if found and found["returns"]:
            await _receive_return(shopper, order, found["returns"][0])


async def buy_and_fail_to_ship(shopper: Shopper) -> None:
    """Place an order whose shipment fails before it is picked up, and ship it again."""
    order = await _shipment_failed(shopper)
    again = await shopper.create_shipment(order) if order else None
    if again and await shopper.move(again, *DELIVERY_STATES):
        shopper.saw("shipped again")


async def buy_and_cancel_failed_shipment(shopper: Shopper) -> None:
    """Place an order whose shipment fails before it is picked up, and cancel it."""
    if (order := await _shipment_failed(shopper)) and await shopper.cancel(order):
        shopper.saw("order cancelled")


async def buy_with_lapsing_authorization(shopper: Shopper) -> None:
    """Place an order whose authorization expires; it is renewed, and the order shipped."""
    order = await shopper.order("tok_lapsing")
    if order is None:
        return

    def is_renewed(payment: Message) -> bool:
        kinds = [one["kind"] for one in payment["transactions"] if one["outcome"].endswith("_SUCCESS")]
        return "TRANSACTION_KIND_EXPIRY" in kinds and kinds.count("TRANSACTION_KIND_AUTHORIZATION") > 1

    path = f"/v1/payments/{order['paymentId']}"
    if await shopper.wait_for(lambda: shopper.read("payment", path), is_renewed):
        shopper.saw("authorization expired and renewed")
        if shipment := await shopper.create_shipment(order):
            await shopper.move(shipment, *DELIVERY_STATES)


async def buy_with_second_card(shopper: Shopper) -> None:
    """Place an order whose payment is declined, and pay for it with another card."""
    customer, order = await shopper.order_declined("tok_insufficient_funds", keepOnDecline=True)
    if order is None or state(order) != "PENDING":
        return
    path = f"/v1/orders/{order['orderId']}/payment"
    if await customer.post("pay", customer.shop, path, {"paymentMethodToken": "tok_ok"}):
        shopper.saw("payment declined and repeated")


async def buy_with_slip(shopper: Shopper) -> None:
    """Place an order that is paid in a store some time later."""
    order = await shopper.order("tok_konbini_paid")
    if order and await shopper.await_order(order, lambda now: state(now) == "CONFIRMED"):
        shopper.saw("slip paid")


async def buy_with_declined_capture(shopper: Shopper) -> None:
    """Place an order whose capture is declined: its saga is parked, and an admin retries it."""
    shipped = await shopper.ship("tok_capture_declined")
    if shipped is None or not await shopper.move(shipped[1], "PICKED_UP"):
        return
    path = f"/v1/sagas/{shipped[0]['orderId'].replace('order-', 'saga-', 1)}"

    if await shopper.wait_for(
        lambda: shopper.read("saga", path, shopper.crew.staff), lambda now: state(now) == "PARKED"
    ):
        shopper.saw("saga parked")
        if await shopper.post("retry", shopper.crew.admin, f"{path}/retry", {"reason": "the load retries it"}):
            shopper.saw("saga retried")


async def change_price(shopper: Shopper) -> None:
    """Raise the price of the load's own product, and buy it."""
    own = shopper.catalog.own
    found = await shopper.read("product", f"/v1/products/{own['productId']}") if own else None
    if found is None:
        return
    for variant in found["variants"]:
        variant["price"]["units"] = str(int(variant["price"]["units"]) + 1)
    body = {name: found[name] for name in ("name", "variants")}
    if await shopper.put("price", shopper.crew.staff, f"/v1/products/{found['productId']}", body):
        shopper.saw("price changed")
    await buy_scarce(shopper)


async def restock(shopper: Shopper) -> None:
    """Add a few units of the load's own product."""
    if own := shopper.catalog.own:
        lines = [{"sku": own["variants"][0]["sku"], "locationId": LOCATION, "delta": 2}]
        body = {"lines": lines, "reason": "ADJUSTMENT_REASON_RECEIVED"}
        if await shopper.post("restock", shopper.crew.staff, "/v1/stock:adjust", body):
            shopper.saw("units received")


async def buy_scarce(shopper: Shopper) -> None:
    """Buy of a product that is soon sold out, and read its stock."""
    own = shopper.catalog.own
    if own is None:
        return
    sku = own["variants"][0]["sku"]
    order = await shopper.order("tok_ok", [{"sku": sku, "quantity": shopper.random.randint(2, 3)}])
    if order and state(order) == "REJECTED":
        shopper.saw("stock sold out")
    await shopper.read("stock", f"/v1/stock/{sku}")


async def _shipment_failed(shopper: Shopper) -> Message | None:
    """Return an order whose shipment failed and that awaits another one."""
    shipped = await shopper.ship()
    if shipped is None or not await shopper.move(shipped[1], "FAILED"):
        return None
    if order := await shopper.await_order(shipped[0], lambda now: not now["shipmentId"]):
        shopper.saw("shipment failed")
    return order


async def _receive_return(shopper: Shopper, order: Message, wanted: Message) -> None:
    """Have staff receive a return; wait until it is restocked and refunded."""
    lines = [{"sku": line["sku"], "restocked": line["quantity"], "locationId": LOCATION} for line in wanted["lines"]]
    path = f"/v1/returns/{wanted['returnId']}"
    if not await shopper.post("receive", shopper.crew.staff, f"{path}/receive", {"lines": lines}):
        return
    if await shopper.wait_for(lambda: shopper.read("get_return", path), lambda now: state(now) == "COMPLETED"):
        shopper.saw("order returned")
        shopper.saw("units restocked")
    path = f"/v1/payments/{order['paymentId']}"
    if await shopper.wait_for(lambda: shopper.read("payment", path), lambda now: state(now).endswith("REFUNDED")):
        shopper.saw("payment refunded")
