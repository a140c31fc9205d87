"""The reference of an edge that knows nothing of the shop, in a browser: it is made of the descriptors alone."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.browser.chromium import PageUnderTest
from tests.e2e.browser.test_reference import ACCESSIBLE, FITS
from tests.edge import processes
from tests.edge.compile import PROTOS, descriptor_set, python_modules

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.foreign]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The edge in front of the library of its own tests."""
    folder: Path = tmp_path_factory.mktemp("library")
    python_modules(PROTOS, folder)
    image = descriptor_set(PROTOS, folder)
    with (
        processes.library(folder, folder / "library.log") as back_end,
        processes.edge(
            folder / "edge.log", "--descriptor-set", str(image), "--upstream", f"*=127.0.0.1:{back_end}"
        ) as (_, port),
    ):
        yield f"http://127.0.0.1:{port}"


async def test_its_reference_shows_every_operation_without_a_word_of_the_shop(
    page: PageUnderTest, library: str
) -> None:
    await page.go(f"{library}/docs")
    await page.until("document.querySelectorAll('#operations a').length > 15")
    assert await page.text("#title") == "Edgetest API"
    assert await page.run("document.querySelectorAll('nav[aria-label=Pages] a').length") == 1

    shown = await page.run("""(async () => {
      const links = [...document.querySelectorAll("#operations a")].map((it) => it.getAttribute("href"));
      for (const link of links) {
        location.hash = link;
        await new Promise((done) => addEventListener("hashchange", done, { once: true }));
        if (!document.querySelector("article .try .curl")?.textContent) return link;
        for (const it of document.querySelectorAll("main details")) it.open = true;
        await new Promise(requestAnimationFrame);
      }
      return links.length;
    })()""")

    assert shown > 15
    assert await page.run(ACCESSIBLE) == []
    await page.resize(390, 844)
    await page.until(FITS)


async def test_without_a_login_there_is_only_a_box_for_a_token(page: PageUnderTest, library: str) -> None:
    await page.go(f"{library}/docs#Library_Inspect")
    await page.until("document.querySelector('article h1')")
    await page.click("#account")
    await page.until("document.querySelector('dialog[open] textarea')")
    assert not await page.run("document.querySelector('dialog input')")

    await page.fill("dialog textarea", "a-token")
    await page.click("dialog button.main")
    await page.click(".try button[type=submit]")

    await page.until("document.querySelector('.result pre')")
    assert json.loads(await page.text(".result pre"))["metadata"]["authorization"] == "Bearer a-token"


async def test_a_stream_that_fails_says_so_at_its_end(page: PageUnderTest, library: str) -> None:
    await page.go(f"{library}/docs#Library_Watch")
    await page.until("document.querySelector('article h1')?.textContent === 'Watch'")
    await page.click(".try details summary")
    await page.fill(".try input[name=count]", "2")
    await page.fill(".try input[name=failCode]", "9")

    await page.click(".try button[type=submit]")

    await page.until("document.querySelector('.events .failed')")
    assert await page.run("document.querySelectorAll('.events li').length") == 3
    assert json.loads(await page.text(".events .failed"))["details"][0]["reason"] == "STREAM_BROKEN"
