"""The API reference at /docs, in a browser."""

import json
import re

import pytest

from tests.e2e.browser.chromium import Browser, PageUnderTest
from tests.e2e.browser.conftest import Shop

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.foreign]

#: Every control has a name, every image its text, and no id is there twice.
ACCESSIBLE = """(() => {
  const named = (it) => it.labels?.length || it.getAttribute("aria-label") || it.textContent.trim();
  const controls = [...document.querySelectorAll("button, input, select, textarea, a")];
  const nameless = controls.filter((it) => !named(it)).map((it) => it.outerHTML.slice(0, 100));
  const images = [...document.images].filter((it) => !it.hasAttribute("alt")).map((it) => it.src);
  const ids = [...document.querySelectorAll("[id]")].map((it) => it.id);
  const shown = [...document.querySelectorAll("h1")].filter((it) => it.checkVisibility());
  const headings = shown.length === 1 ? [] : ["not one h1"];
  return [...nameless, ...images, ...headings, ...ids.filter((id, at) => ids.indexOf(id) !== at)];
})()"""
#: Nothing is wider than the window, but for what scrolls by itself.
FITS = "document.documentElement.scrollWidth <= innerWidth"


async def opened(page: PageUnderTest, shop: Shop, operation: str, title: str) -> None:
    await page.go(f"{shop.url}/docs#{operation}")
    await page.until(f"document.querySelector('article h1')?.textContent === {json.dumps(title)}")


async def sign_in(page: PageUnderTest, shop: Shop) -> None:
    await page.click("#account")
    await page.fill("dialog input[name=email]", shop.staff.email)
    await page.fill("dialog input[name=password]", shop.staff.password)
    await page.click("dialog form button.main")
    await page.until("document.querySelector('#account').textContent === 'Signed in'")


async def test_every_operation_is_listed_and_can_be_opened(page: PageUnderTest, shop: Shop) -> None:
    await page.go(f"{shop.url}/docs")
    await page.until("document.querySelectorAll('#operations a').length > 50")

    opened = await page.run("""(async () => {
      const api = await fetch("/openapi.json").then((it) => it.json());
      const ids = Object.values(api.paths).flatMap((item) => Object.values(item).map((it) => it.operationId));
      const seen = [];
      for (const id of ids) {
        location.hash = id;
        await new Promise((done) => addEventListener("hashchange", done, { once: true }));
        await new Promise(requestAnimationFrame);
        const parts = ["article h1", ".path code", ".try button[type=submit]", ".curl"];
        if (parts.every((it) => document.querySelector(it)?.textContent)) seen.push(id);
      }
      return [ids.length, seen.length];
    })()""")

    assert opened[0] == opened[1] > 60


async def test_an_operation_tells_all_about_itself(page: PageUnderTest, shop: Shop) -> None:
    await opened(page, shop, "OrderService_CreateOrder", "Create Order")

    text = await page.text("main")
    for wanted in ("POST", "/v1/orders", "signed in", "shippingAddress", "required", "1 to 100 entries", "^[A-Z]{3}$"):
        assert wanted in text
    assert "PRICE_CHANGED" in text
    assert "IDEMPOTENCY_KEY_REUSED" in text
    assert "Goes on with CancelOrderLines, GetOrder, CancelOrder" in text
    await page.click(".tree details summary")
    await page.until("document.querySelector('.tree details[open]')?.innerText.includes('sku')")


async def test_the_example_body_is_ready_to_send_with_a_new_key(page: PageUnderTest, shop: Shop) -> None:
    await opened(page, shop, "OrderService_CreateOrder", "Create Order")

    first = json.loads(await page.run("document.querySelector('.try textarea').value"))
    await page.click(".try button[title*='same key']")
    second = json.loads(await page.run("document.querySelector('.try textarea').value"))

    assert {"lines", "currencyCode", "shippingAddress", "requestId"} <= first.keys()
    assert re.fullmatch("[0-9a-f]{32}", first["requestId"])
    assert first["requestId"] != second["requestId"]


async def test_the_example_order_can_be_placed_as_it_is(page: PageUnderTest, shop: Shop) -> None:
    await opened(page, shop, "OrderService_CreateOrder", "Create Order")
    await sign_in(page, shop)

    await page.click(".try button[type=submit]")

    await page.until("document.querySelector('.result pre')")
    assert json.loads(await page.text(".result pre"))["state"] == "ORDER_STATE_CONFIRMED"


async def test_operations_are_found_by_the_keyboard_alone(page: PageUnderTest, shop: Shop) -> None:
    await page.go(f"{shop.url}/docs")
    await page.until("document.querySelector('#operations a')")

    await page.press("/")
    await page.until("document.activeElement.id === 'search'")
    await page.call("Input.insertText", text="preview order")
    await page.until("document.querySelectorAll('#operations a').length === 2")
    await page.press("ArrowDown")
    await page.press("Enter")

    await page.until(
        "location.hash === '#OrderService_PreviewOrder' || location.hash === '#OrderService_PreviewOrder_2'"
    )
    await page.until("document.querySelector('article h1')?.innerText === 'Preview Order'")


async def test_a_public_read_can_be_tried_and_its_reply_is_shown(page: PageUnderTest, shop: Shop) -> None:
    await opened(page, shop, "CatalogService_ListProducts", "List Products")
    await page.click(".try details summary")
    await page.fill(".try input[name=pageSize]", "2")
    assert "pageSize=2" in await page.text(".curl")

    await page.press("Enter", ctrl=True)

    await page.until("document.querySelector('.result pre')")
    assert "200" in await page.text(".result .chip")
    assert len(json.loads(await page.text(".result pre"))["products"]) == 2


async def test_a_refusal_is_shown_with_its_reason(page: PageUnderTest, shop: Shop) -> None:
    await opened(page, shop, "OrderService_GetOrder", "Get Order")

    await page.click(".try button[type=submit]")

    await page.until("document.querySelector('.result pre')")
    assert "401" in await page.text(".result .chip")
    assert "TOKEN_MISSING" in await page.text(".result pre")


async def test_signing_in_gives_calls_a_token(page: PageUnderTest, shop: Shop) -> None:
    await opened(page, shop, "UserService_GetMe", "Get Me")
    await sign_in(page, shop)

    await page.click(".try button[type=submit]")

    await page.until("document.querySelector('.result pre')")
    assert json.loads(await page.text(".result pre"))["email"] == shop.staff.email
    assert "authorization: Bearer $TOKEN" in await page.text(".curl")


async def test_a_stream_is_shown_as_it_comes_until_it_is_stopped(page: PageUnderTest, shop: Shop) -> None:
    await opened(page, shop, "InventoryService_WatchAvailability", "Watch Availability")
    sku = await page.run("document.querySelector('.try input[name=skus]').value")
    assert "curl -N" in await page.text(".curl")

    await page.click(".try button[type=submit]")

    await page.until("document.querySelector('.events li pre')")
    assert json.loads(await page.text(".events pre"))["stock"]["sku"] == sku
    assert "live" in await page.text(".result")
    await page.click(".try button:not([type=submit]):not([title])")
    await page.until("document.querySelector('.result .live').textContent === 'ended'")


@pytest.mark.parametrize("operation", ["", "OrderService_CreateOrder", "OrderService_WatchOrder"])
async def test_the_page_is_accessible_and_fits_any_screen(page: PageUnderTest, shop: Shop, operation: str) -> None:
    await page.go(f"{shop.url}/docs#{operation}")
    await page.until("document.querySelector('main h1')")

    assert await page.run(ACCESSIBLE) == []
    for width in (1400, 900, 390):
        await page.resize(width, 844)
        await page.until(FITS)


async def test_on_a_phone_the_list_is_behind_a_button(page: PageUnderTest, shop: Shop) -> None:
    await page.resize(390, 844)
    await page.go(f"{shop.url}/docs")
    await page.until("document.querySelector('#operations a')")
    assert not await page.run("document.querySelector('#side').checkVisibility()")

    await page.click("#menu")
    await page.until("document.querySelector('#side').checkVisibility()")
    await page.click("#operations a[href='#OrderService_GetOrder']")

    await page.until("document.querySelector('article h1')?.textContent === 'Get Order'")
    assert not await page.run("document.querySelector('#side').checkVisibility()")


async def test_colours_follow_the_system_and_then_the_reader(browser: Browser, shop: Shop) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    async with browser.page(dark=True) as page:
        await page.go(f"{shop.url}/docs")
        await page.until("document.querySelector('main h1')")
        dark = await page.run(ground)
        await page.click("#theme")
        light = await page.run(ground)
        await page.run("window.isOld = true")
        await page.call("Page.reload")
        await page.until("!window.isOld && document.querySelector('main h1')")

        assert (dark, light) == ("rgb(18, 21, 27)", "rgb(255, 255, 255)")
        assert await page.run(ground) == light, "the choice is kept"


async def test_the_page_needs_nothing_from_elsewhere(page: PageUnderTest, shop: Shop) -> None:
    await page.go(f"{shop.url}/docs")
    await page.until("document.querySelector('#operations a')")

    asked = await page.run("performance.getEntriesByType('resource').map((it) => it.name)")

    assert len(asked) >= 8
    assert [url for url in asked if not url.startswith(shop.url)] == []
