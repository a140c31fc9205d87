"""Runs shoppers for some seconds or a number of orders, and returns a summary."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from mesh.errors import StackError
from mesh.qa.concurrency import run_concurrently
from mesh.qa.load import actions
from mesh.qa.load.history import History
from mesh.qa.load.mixes import Mix, endless, has_own_product
from mesh.qa.load.own_product import make_product
from mesh.qa.load.shopper import Catalog, Crew, Shopper
from mesh.qa.sample_data.people import Person
from mesh.qa.shop_client import OutcomeUnknown, RequestRejected, ShopApiClient

_CONCURRENT_SIGN_INS = 4
_WITHOUT_ORDER = actions.browse


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The size of a load."""

    mix: Mix
    concurrency: int
    seconds: float
    #: Also stop after so many orders; 0 for no limit.
    orders: int = 0
    seed: int = 1
    #: Actions that begin each second, as long as some shopper has none; 0: each begins one when its last has ended.
    rate: float = 0


@dataclass(frozen=True, slots=True)
class Credentials:
    """The accounts that a load uses."""

    staff: Person
    admin: Person
    courier: Person
    #: The password of every shopper.
    shoppers_password: str


async def run_load(
    url: str, credentials: Credentials, plan: Plan, history: History, stop: asyncio.Event | None = None
) -> dict[str, Any]:
    """Run a load, also until `stop` is set, record it in `history`, and return its summary. Raises StackError."""
    loop = asyncio.get_running_loop()
    try:
        async with _shoppers(url, credentials, plan, history) as shoppers:
            began = loop.time()
            run = _Run(plan, loop.time, stop or asyncio.Event())
            loop.add_signal_handler(signal.SIGINT, run.stop)
            try:
                await run.execute(shoppers)
            finally:
                loop.remove_signal_handler(signal.SIGINT)
            return summary_of(plan, history, loop.time() - began)
    except (RequestRejected, OutcomeUnknown) as error:
        raise StackError(f"the shoppers cannot sign in: {error}", fix="see `shopmesh status`") from error


class _Run:
    """One run of a plan, with its limits of time and orders."""

    def __init__(self, plan: Plan, clock: Callable[[], float], stop: asyncio.Event) -> None:
        self._plan = plan
        self._clock = clock
        self._stop = stop
        self._until = clock() + plan.seconds
        #: When the next action begins; one shopper waits for it, with the lock.
        self._next = clock()
        self._waiting = asyncio.Lock()
        self._orders = 0
        self._actions = endless(plan.mix, Random(plan.seed))  # noqa: S311  reproducible, guards nothing

    def stop(self) -> None:
        """Stop every shopper after its current action."""
        self._stop.set()

    async def execute(self, shoppers: Sequence[Shopper]) -> None:
        """Run every shopper until a limit is reached."""
        await run_concurrently(shoppers, self._shop, limit=len(shoppers))

    async def _shop(self, shopper: Shopper) -> None:
        while await self._turn():
            action = next(self._actions)
            self._orders += action is not _WITHOUT_ORDER
            await action(shopper)

    async def _turn(self) -> bool:
        """Wait until another action may begin; return False when none may any more."""
        if self._plan.rate:
            async with self._waiting:
                if self._goes_on:
                    await asyncio.sleep(self._next - self._clock())
                    self._next = max(self._next, self._clock()) + 1 / self._plan.rate
        return self._goes_on

    @property
    def _goes_on(self) -> bool:
        has_enough_orders = 0 < self._plan.orders <= self._orders
        return self._clock() < self._until and not has_enough_orders and not self._stop.is_set()


@asynccontextmanager
async def _shoppers(url: str, credentials: Credentials, plan: Plan, history: History) -> AsyncIterator[list[Shopper]]:
    """Open the shoppers of a plan, signed in."""
    async with ShopApiClient.open(url, connections=plan.concurrency + 2) as anonymous:
        crew = await _sign_in_crew(anonymous, credentials)
        own = await make_product(crew.staff) if has_own_product(plan.mix) else None
        catalog = await Catalog.load(anonymous, own)
        if not catalog.products:
            raise StackError("the shop has no products", fix="run `shopmesh sample-data`")
        shoppers: list[Shopper] = []
        register = partial(_register, anonymous, credentials.shoppers_password)

        async def sign_in_shopper(number: int) -> None:
            name = f"shopper-{number}"  # its account is reused by every load
            random = Random(f"{plan.seed}-{number}")  # noqa: S311  reproducible, guards nothing
            shoppers.append(Shopper(name, await register(name), crew, catalog, history, random, register))

        await run_concurrently(range(plan.concurrency), sign_in_shopper, limit=_CONCURRENT_SIGN_INS)
        yield shoppers


async def _sign_in_crew(anonymous: ShopApiClient, credentials: Credentials) -> Crew:
    people = (credentials.staff, credentials.admin, credentials.courier)
    staff, admin, courier = [await anonymous.sign_in(person.email, person.password) for person in people]
    return Crew(staff, admin, courier, (await courier.get("/v1/users/me"))["userId"])


async def _register(anonymous: ShopApiClient, password: str, name: str) -> ShopApiClient:
    """Return a client for the customer of this name."""
    email = f"{name}@load.shopmesh.local"
    account = {"email": email, "password": password, "requestId": f"load-{name}"}
    await anonymous.post("/v1/auth/register", account)
    return await anonymous.sign_in(email, password)


def summary_of(plan: Plan, history: History, seconds: float) -> dict[str, Any]:
    """Return the summary of a load that took so many seconds."""
    return {
        "mix": plan.mix,
        "concurrency": plan.concurrency,
        "seconds": round(seconds, 2),
        "operations": history.operations,
        "per_second": round(history.operations / seconds, 1),
        "requests": {
            kind: {"count": len(times), **history.outcomes[kind], **_percentiles(times)}
            for kind, times in sorted(history.seconds.items())
        },
        "orders": dict(history.orders.most_common()),
        "seen": dict(history.seen.most_common()),
        "reasons": dict(history.reasons.most_common()),
    }


def _percentiles(times: Sequence[float]) -> dict[str, float]:
    """Return percentiles in milliseconds, by the nearest rank."""
    ranked = sorted(times)
    return {
        f"p{percent}_ms": round(1000 * ranked[max(0, -(-len(ranked) * percent // 100) - 1)], 1)
        for percent in (50, 90, 99, 100)
    }
