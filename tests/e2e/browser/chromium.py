"""A headless Chromium, driven by its own DevTools protocol: no more than what the tests of the pages need."""

import asyncio
import base64
import itertools
import json
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import websockets

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
#: The last ones keep it from looking for its maker's servers.
_FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--remote-debugging-port=0",
)  # fmt: skip
_DEADLINE = 60.0


def find() -> str | None:
    """Where Chromium is, if this machine has one."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Browser:
    """A running browser."""

    def __init__(self, socket: websockets.ClientConnection) -> None:
        self._socket = socket
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        #: The console output of pages, by session.
        self.output: dict[str, list[str]] = {}

    async def listen(self) -> None:
        async for text in self._socket:
            message = json.loads(text)
            if "id" in message:
                self._waiting.pop(message["id"]).set_result(message)
            else:
                self._hear(message.get("sessionId", ""), message["method"], message["params"])

    def _hear(self, session: str, method: str, params: dict[str, Any]) -> None:
        output = self.output.setdefault(session, [])
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            output.append(details.get("exception", {}).get("description") or details["text"])
        elif method == "Log.entryAdded":
            entry = params["entry"]
            if entry["level"] == "error" and entry["source"] != "network":  # a refusal is no mistake of the page
                output.append(f"{entry['text']} {entry.get('url', '')}")

    async def call(self, method: str, session: str = "", **params: Any) -> dict[str, Any]:
        """Send a command and returns its result."""
        number = next(self._ids)
        future = self._waiting[number] = asyncio.get_running_loop().create_future()
        target = {"sessionId": session} if session else {}
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params, **target}))
        message = await asyncio.wait_for(future, _DEADLINE)
        if "error" in message:
            raise RuntimeError(f"{method}: {message['error']['message']}")
        return dict(message["result"])

    @asynccontextmanager
    async def page(self, *, width: int = 1400, height: int = 900, dark: bool = False) -> AsyncIterator["PageUnderTest"]:
        """Open a page in a profile of its own."""
        context = (await self.call("Target.createBrowserContext"))["browserContextId"]
        target = (await self.call("Target.createTarget", url="about:blank", browserContextId=context))["targetId"]
        session = (await self.call("Target.attachToTarget", targetId=target, flatten=True))["sessionId"]
        page = PageUnderTest(self, session)
        for domain in ("Page", "Runtime", "Log"):
            await page.call(f"{domain}.enable")
        await page.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        await page.call("Emulation.setEmulatedMedia", features=[scheme])
        try:
            yield page
        finally:
            await self.call("Target.disposeBrowserContext", browserContextId=context)


class PageUnderTest:
    """One tab."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    @property
    def errors(self) -> list[str]:
        """What went wrong in the page, as its console has it."""
        return self._browser.output.get(self._session, [])

    async def call(self, method: str, **params: Any) -> dict[str, Any]:
        return await self._browser.call(method, self._session, **params)

    async def resize(self, width: int, height: int) -> None:
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    async def go(self, url: str) -> None:
        await self.call("Page.navigate", url=url)

    async def run(self, script: str) -> Any:
        """Evaluate an expression in the page; an element counts as true."""
        wrapped = f"Promise.resolve({script}).then((it) => (it instanceof Node ? true : it))"
        found = await self.call("Runtime.evaluate", expression=wrapped, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"].get("exception", {}).get("description", "failed"))
        return found["result"].get("value")

    async def until(self, script: str, *, seconds: float = _DEADLINE) -> Any:
        """Wait until an expression is true in the page, and returns it."""
        deadline = asyncio.get_running_loop().time() + seconds
        while not (value := await self._value(script)):
            if asyncio.get_running_loop().time() > deadline:
                shown = await self._value("document.body.innerText.slice(0, 2000)")
                raise AssertionError(f"never true: {script}\nthe page shows: {shown}\nerrors: {self.errors}")
            await asyncio.sleep(0.05)
        return value

    async def _value(self, script: str) -> Any:
        try:
            return await self.run(script)
        except RuntimeError:  # between two documents
            return None

    async def text(self, selector: str = "body") -> str:
        return str(await self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    async def click(self, selector: str) -> None:
        """Clicks the first element that a selector finds and that can be clicked, as a person would: in its middle."""
        script = f"""(async () => {{
            const found = [...document.querySelectorAll({json.dumps(selector)})];
            const it = found.find((it) => it.checkVisibility() && !it.disabled);
            it?.scrollIntoView({{block: "center", behavior: "instant"}});
            await new Promise(requestAnimationFrame);
            const box = it?.getBoundingClientRect();
            const spot = box && [box.x + box.width / 2, box.y + box.height / 2];
            return spot && it.contains(document.elementFromPoint(...spot)) ? spot : null;
        }})()"""
        x, y = await self.until(script)
        for kind, buttons in (("mouseMoved", 0), ("mousePressed", 1), ("mouseReleased", 0)):
            button = "none" if kind == "mouseMoved" else "left"
            await self.call(
                "Input.dispatchMouseEvent", type=kind, x=x, y=y, button=button, buttons=buttons, clickCount=1
            )

    async def fill(self, selector: str, text: str) -> None:
        """Replace what a field holds."""
        await self.until(f"Boolean(document.querySelector({json.dumps(selector)}))")
        await self.run(
            f"(() => {{ const it = document.querySelector({json.dumps(selector)}); it.focus(); it.value = '';"
            " it.select?.(); })()"
        )
        await self.call("Input.insertText", text=text)

    async def press(self, key: str, *, ctrl: bool = False) -> None:
        """Presses a key, such as `/`, `Enter` or `ArrowDown`."""
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowDown": 40, "ArrowUp": 38}
        common = {"key": key, "windowsVirtualKeyCode": codes.get(key, 0), "modifiers": 2 if ctrl else 0}
        await self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        await self.call("Input.dispatchKeyEvent", type="keyUp", **common)

    async def screenshot(self, path: Path, *, whole: bool = False) -> None:
        found = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        await asyncio.to_thread(path.write_bytes, base64.b64decode(found["data"]))


@asynccontextmanager
async def chromium(path: str, folder: Path) -> AsyncIterator[Browser]:
    """Start Chromium with a new profile below `folder`."""
    profile = folder / "profile"
    with (folder / "chromium.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            path, *_FLAGS, f"--user-data-dir={profile}", stdout=log, stderr=log
        )
    try:
        port, route = await _endpoint(profile / "DevToolsActivePort", process)
        async with websockets.connect(f"ws://127.0.0.1:{port}{route}", max_size=None, proxy=None) as socket:
            browser = Browser(socket)
            listening = asyncio.create_task(browser.listen())
            try:
                yield browser
            finally:
                listening.cancel()
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()


async def _endpoint(file: Path, process: asyncio.subprocess.Process) -> tuple[str, str]:
    deadline = asyncio.get_running_loop().time() + _DEADLINE
    while asyncio.get_running_loop().time() < deadline and process.returncode is None:
        lines = await asyncio.to_thread(lambda: file.read_text().split() if file.exists() else [])
        if len(lines) == 2:
            return lines[0], lines[1]
        await asyncio.sleep(0.05)
    raise RuntimeError("Chromium did not start")
