"""CreateOrder and its errors, lists by owner and state, and replies while the database is unavailable."""

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit, urlunsplit

import pytest

from chassis import timestamp
from chassis.testing import eventually
from chassis.types.money import money
from shop.catalog.v1 import catalog_service_pb2 as catalog_pb
from shop.chassis.v1.chassis_errors import InvalidRequest, PageTokenInvalid
from shop.delivery.v1 import delivery_service_pb2 as delivery_pb
from shop.order.v1 import order_service_pb2 as pb
from shop.order.v1 import saga_pb2
from shop.order.v1.order_errors import SkuNotFound, TooManyOpenOrders
from shop.payment.v1.payment_errors import PaymentMethodInvalid
from tests.integration.svc_order.shop import ADDRESS, buy, upstreams
from tests.integration.svc_order.shop_queries import available, get, payment_of, reached, timeline

#: Copies of an order that wait for ever, since they have no sagas.
WAITING = """
INSERT INTO orders (order_id, user_id, state, payment_state, fulfillment_state, currency, subtotal, shipping_fee,
    tax_total, total, shipping_address, slot_id, reservation_id, payment_id, version, create_time, update_time)
SELECT 'order-' || n, user_id, 'PENDING', payment_state, fulfillment_state, currency, subtotal, shipping_fee,
    tax_total, total, shipping_address, slot_id, 'reservation-' || n, 'payment-' || n, 1, create_time, update_time
FROM orders, generate_series(1, $1) AS n"""


async def test_a_customer_with_too_many_pending_orders_places_none_until_one_is_decided(shop, rows):
    with shop.customer():
        first = await shop.orders.CreateOrder(buy(("shirt", 1), request_id="k-0"))
        await rows.execute(WAITING, 19)
        await shop.orders.CreateOrder(buy(("shirt", 1), request_id="k-1"))
        await rows.execute("UPDATE orders SET state = 'PENDING' WHERE order_id = $1", first.order_id)
        with pytest.raises(TooManyOpenOrders) as error:
            await shop.orders.CreateOrder(buy(("shirt", 1), request_id="k-2"))
        assert error.value.metadata["limit"] == "20"
        assert (await shop.orders.CreateOrder(buy(("shirt", 1), request_id="k-0"))).order_id == first.order_id
    with shop.customer("customer-2"):
        await shop.orders.CreateOrder(buy(("shirt", 1), request_id="k-2"))
    await rows.execute("UPDATE orders SET state = 'REJECTED' WHERE order_id = 'order-1'")
    with shop.customer():
        taken = await shop.orders.CreateOrder(buy(("shirt", 1), request_id="k-2"))
    assert taken.state == pb.ORDER_STATE_CONFIRMED


async def test_a_cart_heavier_than_any_parcel_is_invalid(shop):
    with shop.staff():
        variant = catalog_pb.Variant(sku="anvil", price=money(100, "THB"), weight_grams=1_000_000)
        product = catalog_pb.Product(product_id="p-anvil", name="Anvil", variants=[variant])
        await shop.catalog.CreateProduct(catalog_pb.CreateProductRequest(product=product, request_id="c-anvil"))
    with shop.customer():
        cart = pb.PreviewOrderRequest(currency_code="THB", shipping_address=ADDRESS)
        cart.lines.add(sku="anvil", quantity=100)
        assert (await shop.orders.PreviewOrder(cart)).shipping_fee == money(5_000 + 100_000 * 1_000, "THB")
        for quantity in (101, 999):
            with pytest.raises(InvalidRequest) as error:
                await shop.orders.CreateOrder(buy(("anvil", quantity)))
            assert error.value.metadata["field"] == "lines"


async def test_a_preview_lists_short_skus_and_has_no_shipping_fee_without_an_address(shop):
    lines = [
        pb.CartLine(sku="coat", quantity=6),
        pb.CartLine(sku="shirt", quantity=10),
        pb.CartLine(sku="coat", quantity=5),
    ]
    with shop.customer():
        cart = pb.PreviewOrderRequest(lines=lines, currency_code="THB")
        preview = await shop.orders.PreviewOrder(cart)
        cart.shipping_address.CopyFrom(ADDRESS)
        delivered = await shop.orders.PreviewOrder(cart)
    assert [(line.sku, line.quantity) for line in preview.lines] == [("coat", 11), ("shirt", 10)]
    assert list(preview.short_skus) == ["coat"]
    assert not preview.HasField("shipping_fee")
    assert preview.total == preview.subtotal == money(107_000 * 11 + 10_700 * 10, "THB")
    assert preview.tax_total == money(7_000 * 11 + 700 * 10, "THB")
    fee = 5_000 + 11 * 1_000  # 21 pieces of 500 g
    assert (delivered.shipping_fee, delivered.total.units) == (money(fee, "THB"), preview.total.units + fee // 100)
    assert delivered.tax_total == money(7_000 * 11 + 700 * 10 + 1_047, "THB")


async def test_an_order_keeps_the_prices_and_names_of_its_creation(shop):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("coat", 1), ("shirt", 2)))
        assert await get(shop, order.order_id) == order
    assert [(line.sku, line.product_id, line.name, line.quantity) for line in order.lines] == [
        ("coat", "p-coat", "Coat", 1),
        ("shirt", "p-shirt", "Shirt", 2),
    ]
    coat, shirt = order.lines
    assert (shirt.unit_price, shirt.total, shirt.tax) == (
        money(10_700, "THB"),
        money(21_400, "THB"),
        money(1_400, "THB"),
    )
    assert (coat.tax_rate_basis_points, coat.weight_grams) == (700, 500)
    assert (order.shipping_address, order.user_id) == (ADDRESS, "customer-1")
    assert (order.subtotal, order.shipping_fee) == (money(128_400, "THB"), money(7_000, "THB"))
    assert order.total == money(135_400, "THB")
    assert order.tax_total == money(7_000 + 1_400 + 458, "THB")


async def test_a_deleted_product_cannot_be_ordered_and_stays_in_existing_orders(shop):
    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1)))
    with shop.staff():
        await shop.catalog.DeleteProduct(catalog_pb.DeleteProductRequest(product_id="p-shirt", request_id="d-1"))
    with shop.customer():
        with pytest.raises(SkuNotFound):
            await shop.orders.CreateOrder(buy(("shirt", 1)))
        assert await get(shop, order.order_id) == order


async def test_an_order_is_accepted_while_svc_payment_is_unavailable_and_confirmed_later(shop, another):
    with shop.customer():
        async with another(upstreams=upstreams(shop.addresses, svc_payment="127.0.0.1:1")) as orders:
            order = await orders.CreateOrder(buy(("shirt", 1)))
        await reached(shop, order.order_id, pb.ORDER_STATE_CONFIRMED)


async def test_an_invalid_payment_method_fails_before_an_order_is_inserted(shop, rows):
    with shop.customer(), pytest.raises(PaymentMethodInvalid):
        await shop.orders.CreateOrder(buy(("shirt", 1), token="tok_expired_card"))
    assert await rows.fetchval("SELECT count(*) FROM orders") == 0


@pytest.fixture
async def slot(shop):
    """A slot with one place, the day after tomorrow."""
    start = datetime.now(UTC) + timedelta(days=2)
    request = delivery_pb.CreateSlotRequest(
        zone_id="bangkok",
        start_time=timestamp(start),
        end_time=timestamp(start + timedelta(hours=2)),
        capacity=1,
        request_id="slot-1",
    )
    with shop.staff():
        return await shop.delivery.CreateSlot(request)


async def test_a_slot_is_booked_with_the_order_and_released_when_it_ends(shop, slot):
    async def places():
        open_slots = await shop.delivery.ListSlots(delivery_pb.ListSlotsRequest(zone_id="bangkok"))
        return sum(one.available for one in open_slots.slots)

    with shop.customer():
        order = await shop.orders.CreateOrder(buy(("shirt", 1), slot_id=slot.slot_id))
        assert (order.state, order.slot_id, await places()) == (pb.ORDER_STATE_CONFIRMED, slot.slot_id, 0)
        full = await shop.orders.CreateOrder(buy(("shirt", 1), slot_id=slot.slot_id))
        assert (full.state, full.state_reason) == (pb.ORDER_STATE_REJECTED, "SLOT_FULL")
        assert (await timeline(shop, full.order_id))["book_slot"] == saga_pb2.SAGA_STEP_STATE_REFUSED
        cancelled = await shop.orders.CancelOrder(pb.CancelOrderRequest(order_id=order.order_id, request_id="c-1"))
        assert (cancelled.state, await places()) == (pb.ORDER_STATE_CANCELLED, 1)
        declined = await shop.orders.CreateOrder(buy(("shirt", 1), slot_id=slot.slot_id, token="tok_declined"))
        assert (declined.state, await places()) == (pb.ORDER_STATE_REJECTED, 1)
    assert await available(shop, "shirt") == 10


async def test_a_list_is_filtered_by_state_and_for_staff_by_customer(shop):
    made = {}
    for name in ("customer-1", "customer-2"):
        with shop.customer(name):
            for token in ("tok_ok", "tok_declined"):
                made[name, token] = (await shop.orders.CreateOrder(buy(("shirt", 1), token=token))).order_id

    async def listed(**filters):
        page = await shop.orders.ListOrders(pb.ListOrdersRequest(**filters))
        assert not page.next_page_token
        return [order.order_id for order in page.orders][::-1]

    one, two = ([made[name, token] for token in ("tok_ok", "tok_declined")] for name in ("customer-1", "customer-2"))
    with shop.customer("customer-2"):
        assert await listed() == two
        assert await listed(user_id="customer-1", page_size=2) == two
        assert await listed(state=pb.ORDER_STATE_REJECTED) == two[1:]
        assert await listed(state=pb.ORDER_STATE_SHIPPED) == []
        with pytest.raises(PageTokenInvalid):
            await listed(page_token="bm8=")
    with shop.staff():
        assert await listed() == [*one, *two]
        assert await listed(user_id="customer-1") == one
        assert await listed(user_id="customer-1", state=pb.ORDER_STATE_CONFIRMED) == one[:1]
        assert await listed(state=pb.ORDER_STATE_REJECTED) == [one[1], two[1]]


async def test_orders_with_the_same_create_time_are_listed_once_each(shop, rows):
    with shop.customer():
        made = {(await shop.orders.CreateOrder(buy(("shirt", 1)))).order_id for _ in range(3)}
        await rows.execute("UPDATE orders SET create_time = now()")
        seen, token = [], ""
        for _ in made:
            page = await shop.orders.ListOrders(pb.ListOrdersRequest(page_size=1, page_token=token))
            seen.extend(order.order_id for order in page.orders)
            token = page.next_page_token
    assert (set(seen), token) == (made, "")


async def test_a_closed_watch_frees_its_place_on_the_server(shop, another):
    async with another(max_concurrent_rpcs=4) as orders:
        with shop.customer():
            order = await shop.orders.CreateOrder(buy(("shirt", 1)))
            for _ in range(12):
                watch = orders.WatchOrder(pb.WatchOrderRequest(order_id=order.order_id))
                assert (await anext(watch)).order == order
                await watch.aclose()
                assert (await orders.GetOrder(pb.GetOrderRequest(order_id=order.order_id))) == order


class Line:
    """A connection to the database that can be cut, and laid again."""

    def __init__(self, server, folder):
        self.path = f"{folder}/.s.PGSQL.5432"
        self._server_path = server
        self._pipes = set()

    async def lay(self):
        self._listener = await asyncio.start_unix_server(self._join, self.path)

    async def cut(self):
        self._listener.close()
        pipes = list(self._pipes)
        for pipe in pipes:
            pipe.cancel()
        await asyncio.gather(*pipes, return_exceptions=True)

    async def _join(self, reader, writer):
        back, forth = await asyncio.open_unix_connection(self._server_path)
        pipe = asyncio.gather(_pour(reader, forth), _pour(back, writer))
        self._pipes.add(pipe)
        pipe.add_done_callback(self._pipes.discard)


async def _pour(source, sink):
    try:
        while data := await source.read(65_536):
            sink.write(data)
            await sink.drain()
    finally:
        sink.close()


@asynccontextmanager
async def cuttable(url, folder):
    """Lends the URL of a database by way of a line that can be cut, and the line."""
    parts = urlsplit(url)
    (real,) = parse_qs(parts.query)["host"]
    line = Line(f"{real}/.s.PGSQL.5432", folder)
    await line.lay()
    yield urlunsplit(parts._replace(query=f"host={folder}")), line
    await line.cut()


async def test_a_placed_order_is_returned_although_the_database_became_unavailable(shop, another, rows, tmp_path):
    async with cuttable(shop.databases["svc_order"], tmp_path) as (url, line), another(database_url=url) as orders:
        with shop.customer():
            request = buy(("shirt", 1), token="tok_slow_3000", request_id="k-1")
            placing = asyncio.create_task(orders.CreateOrder(request))
            await eventually(lambda: rows.fetchval("SELECT true FROM saga WHERE step = 'authorize_payment'"), bool)
            await line.cut()
            order = await placing
            assert order.state == pb.ORDER_STATE_PENDING
            confirmed = await reached(shop, order.order_id, pb.ORDER_STATE_CONFIRMED)
            assert (await payment_of(shop, order)).authorized_amount == order.total
            await line.lay()
            again = await eventually(lambda: orders.CreateOrder(request), lambda one: one == confirmed)
    assert again.order_id == order.order_id
