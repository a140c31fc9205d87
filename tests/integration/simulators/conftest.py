"""Real simulator processes, and a real HTTP server that takes their webhooks."""

import asyncio
import os
import signal
import subprocess
import sys
import uuid
from collections import deque
from collections.abc import Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

import httpx
import pytest
import pytest_asyncio

from svc_delivery.courier import Courier
from svc_payment.provider import PaymentProvider

ROOT = Path(__file__).parents[3]
SECRET = "whsec_c2ltdWxhdG9ycy1hbmQtdGhlLXNob3Atc2hhcmUtdGhpcw=="
KEY = "key-of-the-tests"


@dataclass
class Process:
    """A simulator as a user starts it."""

    popen: subprocess.Popen
    url: str
    log: Path
    key: str = KEY

    def kill(self):
        self.popen.kill()
        self._reap()

    def stop(self):
        self.popen.send_signal(signal.SIGTERM)
        return self._reap()

    def _reap(self):
        self.popen.stdout.close()
        return self.popen.wait(timeout=30)


@dataclass(frozen=True)
class Delivery:
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Takes webhooks at `url`, while the gate is open; answers 204, or what `refuse` put in its place."""

    deliveries: list[Delivery] = field(default_factory=list)
    refusals: dict[str, deque[int]] = field(default_factory=dict)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    arrival: asyncio.Condition = field(default_factory=asyncio.Condition)
    url: str = ""

    def refuse(self, subject: str, *statuses: int) -> None:
        """Answers the next deliveries that speak of a subject with these."""
        self.refusals[subject] = deque(statuses)

    async def until(self, subject: str, count: int, within: float = 60) -> list[Delivery]:
        """The deliveries that speak of a subject, once there are so many."""

        def of_subject():
            return [delivery for delivery in self.deliveries if subject.encode() in delivery.body]

        async with asyncio.timeout(within), self.arrival:
            await self.arrival.wait_for(lambda: len(of_subject()) >= count)
        return of_subject()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")[1:-2]
            headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in head)}
            body = await reader.readexactly(int(headers["content-length"]))
            async with self.arrival:
                self.deliveries.append(Delivery(headers, body))
                self.arrival.notify_all()
            await self.gate.wait()
            status = HTTPStatus(self._status(body))
            writer.write(f"HTTP/1.1 {status} {status.phrase}\r\nconnection: close\r\n\r\n".encode())
            await writer.drain()
        writer.close()

    def _status(self, body: bytes) -> int:
        for subject, statuses in self.refusals.items():
            if subject.encode() in body and statuses:
                return statuses.popleft()
        return 204


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def receiver():
    receiver = Receiver()
    receiver.gate.set()
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    receiver.url = f"http://{host}:{port}/v1/webhooks"
    async with server:
        yield receiver


@pytest.fixture(scope="module")
def launch(tmp_path_factory) -> Callable[..., Process]:
    """Start a simulator and waits until it listens."""
    processes = []

    def launch(module: str, **env: str) -> Process:
        log = tmp_path_factory.mktemp(module) / "log"
        with log.open("wb") as stderr:
            popen = subprocess.Popen(
                [sys.executable, "-m", f"mesh.simulators.{module}"],
                cwd=ROOT,
                env={"PATH": os.environ["PATH"], "LISTEN": "127.0.0.1:0", "API_KEY": KEY} | env,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        line = popen.stdout.readline()
        assert line.startswith("listening on "), log.read_text()
        process = Process(popen, f"http://{line.split()[-1]}", log)
        processes.append(process)
        return process

    yield launch
    for process in processes:
        if process.popen.poll() is None:
            process.kill()


@pytest.fixture(scope="module")
def launch_telling(launch, receiver) -> Callable[..., Process]:
    """The same, with webhooks sent to the receiver."""
    return lambda module, **env: launch(module, **{"WEBHOOK_URL": receiver.url, "WEBHOOK_SECRET": SECRET} | env)


@pytest.fixture(scope="module")
def provider_process(launch_telling) -> Process:
    return launch_telling("payment_provider")


@pytest.fixture(scope="module")
def courier_process(launch_telling) -> Process:
    return launch_telling("courier")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def provider(provider_process):
    async with aclosing(PaymentProvider(url=provider_process.url, key=KEY)) as provider:
        yield provider


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def courier(courier_process):
    async with aclosing(Courier(url=courier_process.url, key=KEY)) as courier:
        yield courier


@pytest.fixture(scope="module")
def secret() -> str:
    return SECRET


@pytest.fixture
def reference() -> str:
    return f"ref-{uuid.uuid4()}"


def api(process: Process) -> httpx.AsyncClient:
    """The bare API, for what an adapter would not ask."""
    return httpx.AsyncClient(base_url=process.url, headers={"authorization": f"Bearer {KEY}"})


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def provider_api(provider_process):
    async with api(provider_process) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def courier_api(courier_process):
    async with api(courier_process) as client:
        yield client


@pytest_asyncio.fixture(loop_scope="module")
async def provider_faults(provider_api):
    """Set the provider's faults, and takes them back after the test."""
    yield lambda **faults: set_faults(provider_api, faults)
    await set_faults(provider_api, {})


@pytest_asyncio.fixture(loop_scope="module")
async def courier_faults(courier_api):
    yield lambda **faults: set_faults(courier_api, faults)
    await set_faults(courier_api, {})


async def set_faults(client: httpx.AsyncClient, faults: dict) -> dict:
    answer = await client.put("/v1/faults", json=faults)
    assert answer.status_code == 200, answer.text
    return answer.json()
