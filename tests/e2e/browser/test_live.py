"""The live order page at /docs/live, in a browser: bought, watched, cancelled, shipped."""

import uuid

import pytest

from tests.e2e.browser.chromium import PageUnderTest
from tests.e2e.browser.conftest import Shop
from tests.e2e.browser.test_reference import ACCESSIBLE, FITS

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.foreign]

ENTERED = "document.querySelector('#buy select') && document.querySelector('#orders li')"


def state(track: str, wanted: str) -> str:
    return f"document.querySelector('[data-track={track}][data-state={wanted}]')"


async def enter(page: PageUnderTest, shop: Shop, *, staff: bool = False) -> None:
    """Signs in, as staff or as a new customer."""
    await page.go(f"{shop.url}/docs/live")
    await sign_in(page, shop, staff=staff)
    await page.until(ENTERED)


async def sign_in(page: PageUnderTest, shop: Shop, *, staff: bool) -> None:
    await page.until("document.querySelector('#entrance form')")
    await page.fill("input[name=email]", shop.staff.email if staff else f"{uuid.uuid4().hex}@example.com")
    await page.fill("input[name=password]", shop.staff.password if staff else "correct horse battery")
    if not staff:
        await page.click("input[name=new]")
    await page.click("#entrance button[type=submit]")


async def buy(page: PageUnderTest, card: str = "tok_ok") -> str:
    """Places an order and returns its id, once the board shows it."""
    before = await page.text(".title code")
    await page.run(f"document.querySelector('#buy [name=card]').value = '{card}'")
    await page.click("#buy button")
    await page.until(f"(document.querySelector('.title code')?.textContent ?? '{before}') !== '{before}'")
    return await page.text(".title code")


async def test_a_new_customer_buys_and_sees_order_and_payment_change(page: PageUnderTest, shop: Shop) -> None:
    await enter(page, shop)
    await buy(page)

    await page.until(state("order", "CONFIRMED"))
    await page.until(state("payment", "AUTHORIZED"))
    assert "Not begun" in await page.text("[data-track=shipment]")
    await page.until("document.querySelector('[data-track=order] .chip').textContent === 'live'")
    assert "Confirmed" in await page.text("#orders")
    assert await page.run(ACCESSIBLE) == []


HOLD_THE_LIST = """(() => {
    const real = window.fetch;
    window.asked = [];
    window.fetch = async (url, options) => {
        asked.push(String(url));
        if (String(url).includes("/v1/orders?")) await new Promise((release) => (window.release = release));
        return real(url, options);
    };
})()"""


async def test_nobody_can_buy_before_the_list_that_would_hide_the_new_order_is_there(
    page: PageUnderTest, shop: Shop
) -> None:
    await enter(page, shop)
    await page.click("#leave")
    await page.until("document.querySelector('#entrance form')")
    assert not await page.run("document.querySelector('#buy select, #orders li, #board > *')")
    await page.run(HOLD_THE_LIST)
    await sign_in(page, shop, staff=True)

    await page.until("!!window.release")
    assert not [url for url in await page.run("asked") if "/v1/products" in url]
    await page.run("release()")
    await page.until(ENTERED)


async def test_a_cancelled_order_gives_its_money_back_before_ones_eyes(page: PageUnderTest, shop: Shop) -> None:
    await enter(page, shop)
    await buy(page)
    await page.until(state("payment", "AUTHORIZED"))
    await page.until(state("order", "CONFIRMED"))

    await page.click(".title button")

    await page.until(state("order", "CANCELLED"))
    await page.until(state("payment", "VOIDED"))
    await page.until("document.querySelector('[data-track=order] .chip').textContent === 'final'")
    assert "Cancelled by customer" in await page.text("[data-track=order]")
    assert "Authorized" in await page.text(".log")


async def test_a_declined_card_is_told_with_its_reason(page: PageUnderTest, shop: Shop) -> None:
    await enter(page, shop)
    await buy(page, "tok_declined")

    await page.until(state("order", "REJECTED"))
    assert "Payment declined" in await page.text("[data-track=order]")
    await page.until(state("payment", "FAILED"))
    assert "None" in await page.text("[data-track=shipment]")


async def test_staff_ships_a_parcel_and_all_three_tracks_move(page: PageUnderTest, shop: Shop) -> None:
    await enter(page, shop, staff=True)
    await buy(page)
    await page.until(state("order", "CONFIRMED"))

    await page.click(".title button.main")
    await page.until(state("shipment", "LABELLED"))
    for step in ("picked up", "in transit", "out for delivery", "delivered"):
        await page.until(f"document.querySelector('.title button.main').textContent === 'Mark as {step}'")
        await page.click(".title button.main")

    await page.until(state("shipment", "DELIVERED"))
    await page.until(state("payment", "CAPTURED"))
    await page.until(state("order", "DELIVERED"))
    info = await page.text(".log")
    for wanted in ("Labelled", "Picked up", "In transit", "Out for delivery", "Delivered", "Captured"):
        assert wanted in info


async def test_a_connection_that_breaks_is_taken_up_again(page: PageUnderTest, shop: Shop) -> None:
    await enter(page, shop)
    await buy(page)
    await page.until(state("order", "CONFIRMED"))
    await page.until("document.querySelector('[data-track=order] .chip').textContent === 'live'")

    await page.run("""(() => {
      const chip = document.querySelector("[data-track=order] .chip");
      window.output = [];
      new MutationObserver(() => output.push(chip.textContent)).observe(chip, { childList: true });
    })()""")
    shop.cli.kill("edge_gateway")

    await page.until("output.includes('connecting again')")
    await page.until("document.querySelector('[data-track=order] .chip').textContent === 'live'")
    await page.click(".title button")
    await page.until(state("order", "CANCELLED"))


async def test_the_same_order_is_there_after_a_reload_and_a_picked_one_is_shown(
    page: PageUnderTest, shop: Shop
) -> None:
    await enter(page, shop)
    first = await buy(page)
    await page.until(state("order", "CONFIRMED"))
    second = await buy(page)
    assert first != second

    await page.click(f"[data-order='{first}'] button")
    await page.until(f"document.querySelector('.title code').textContent === '{first}'")
    await page.run("window.isOld = true")
    await page.call("Page.reload")

    await page.until(f"!window.isOld && document.querySelector('.title code')?.textContent === '{first}'")
    await page.until(state("order", "CONFIRMED"))
    for width in (1400, 900, 390):
        await page.resize(width, 844)
        await page.until(FITS)


async def test_signing_out_forgets_the_token(page: PageUnderTest, shop: Shop) -> None:
    await enter(page, shop)

    await page.click("#leave")

    await page.until("document.querySelector('#entrance form')?.checkVisibility()")
    assert await page.run("sessionStorage.length") == 0
