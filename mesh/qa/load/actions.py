"""What shoppers do in an ordinary shop: browse, buy, cancel, receive a parcel."""

from mesh.qa.load.shopper import Shopper

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


async def browse(shopper: Shopper) -> None:
    """Read a list, a product and its stock."""
    product = shopper.random.choice(shopper.catalog.products)
    category = product["categoryIds"][0] if product["categoryIds"] else ""
    await shopper.read("list", "/v1/products", pageSize=20, categoryId=category)
    await shopper.read("product", f"/v1/products/{product['productId']}")
    await shopper.read("stock", f"/v1/stock/{product['variants'][0]['sku']}")


async def buy(shopper: Shopper) -> None:
    """Place an order."""
    await shopper.order("tok_ok")


async def buy_and_look_up(shopper: Shopper) -> None:
    """Place an order, and read it and the stock of what it contains."""
    if order := await shopper.order("tok_ok"):
        await shopper.read_order(order)
        await shopper.read("stock", f"/v1/stock/{order['lines'][0]['sku']}")
        await shopper.read_order(order)


async def buy_with_fault(shopper: Shopper) -> None:
    """Place an order whose payment meets a fault."""
    await shopper.order(shopper.random.choice(_FAULT_TOKENS))


async def buy_with_declined_card(shopper: Shopper) -> None:
    """Place an order whose payment is declined."""
    await shopper.order_declined(shopper.random.choice(_DECLINED_TOKENS))


async def buy_and_cancel(shopper: Shopper) -> None:
    """Place an order and cancel it."""
    order = await shopper.order("tok_ok")
    if order and await shopper.cancel(order):
        shopper.saw("order cancelled")


async def buy_and_receive(shopper: Shopper) -> None:
    """Place an order, which staff ships and the courier delivers."""
    await shopper.receive(shopper.random.choice(("tok_ok", "tok_dispute_won")))
