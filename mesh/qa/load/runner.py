"""Lets shoppers loose for a while, or for a number of orders, and sums up what became of it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import Any

from mesh.errors import StackError
from mesh.qa.concurrency import each
from mesh.qa.load.history import History
from mesh.qa.load.shopper import MIXES, Goods, Mix, Shopper
from mesh.qa.sample_data.people import Person
from mesh.qa.shop_client import Refused, Shopfront, Unknown

_SIGN_IN_AT_ONCE = 4
_BUYS_NOTHING = Shopper.browse


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much of what."""

    mix: Mix
    concurrency: int
    seconds: float
    #: Stop after so many orders, too; 0 for no such limit.
    orders: int = 0
    seed: int = 1


@dataclass(frozen=True, slots=True)
class Crew:
    """Who takes part besides shoppers."""

    staff: Person
    courier: Person
    #: All shoppers sign in with it.
    shoppers_password: str


async def run_load(url: str, crew: Crew, plan: Plan, history: History) -> dict[str, Any]:
    """The summary of a load, with which `history` was filled."""
    loop = asyncio.get_running_loop()
    try:
        async with _shoppers(url, crew, plan, history) as shoppers:
            began = loop.time()
            day = _Day(plan, loop.time)
            loop.add_signal_handler(signal.SIGINT, day.end)
            try:
                await day.spend(shoppers)
            finally:
                loop.remove_signal_handler(signal.SIGINT)
            return summary_of(plan, history, loop.time() - began)
    except (Refused, Unknown) as error:
        raise StackError(f"the shop lets nobody in: {error}", fix="see `shopmesh status`") from error


class _Day:
    """What is left of the time and of the orders."""

    def __init__(self, plan: Plan, clock: Callable[[], float]) -> None:
        self._plan = plan
        self._clock = clock
        self._until = clock() + plan.seconds
        self._orders = 0

    def end(self) -> None:
        """Have everybody leave as soon as what they are at is done."""
        self._until = 0.0

    async def spend(self, shoppers: Sequence[Shopper]) -> None:
        await each(shoppers, self._shop, at_once=len(shoppers))

    async def _shop(self, shopper: Shopper) -> None:
        shares = MIXES[self._plan.mix]
        while self._clock() < self._until and not self._sold_out:
            (journey,) = shopper.random.choices(list(shares), list(shares.values()))
            self._orders += journey is not _BUYS_NOTHING
            await journey(shopper)

    @property
    def _sold_out(self) -> bool:
        return 0 < self._plan.orders <= self._orders


@asynccontextmanager
async def _shoppers(url: str, crew: Crew, plan: Plan, history: History) -> AsyncIterator[list[Shopper]]:
    """Shoppers who are signed in, one for each place in the shop."""
    async with Shopfront.open(url, connections=plan.concurrency + 2) as door:
        goods = await Goods.look(door)
        if not goods.products:
            raise StackError("there is nothing to buy", fix="run `shopmesh sample-data`")
        staff, courier = await _enter(door, crew.staff), await _enter(door, crew.courier)
        inside: list[Shopper] = []

        async def enter(number: int) -> None:
            shop = await _register(door, number, crew.shoppers_password)
            random = Random(f"{plan.seed}-{number}")  # noqa: S311  to be repeated, not to be secret
            inside.append(Shopper(shop, staff, courier, goods, history, random))

        await each(range(plan.concurrency), enter, at_once=_SIGN_IN_AT_ONCE)
        yield inside


async def _enter(door: Shopfront, person: Person) -> Shopfront:
    return await door.sign_in(person.email, person.password)


async def _register(door: Shopfront, number: int, password: str) -> Shopfront:
    """The same account for a number every time, so that loads leave no crowd behind."""
    email = f"shopper-{number}@load.shopmesh.local"
    account = {"email": email, "password": password, "requestId": f"load-shopper-{number}"}
    await door.post("/v1/auth/register", account)
    return await door.sign_in(email, password)


def summary_of(plan: Plan, history: History, seconds: float) -> dict[str, Any]:
    """What a load that took so long comes to."""
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
        "reasons": dict(history.reasons.most_common()),
    }


def _percentiles(times: Sequence[float]) -> dict[str, float]:
    """Milliseconds, by the nearest rank."""
    ranked = sorted(times)
    return {
        f"p{percent}_ms": round(1000 * ranked[max(0, -(-len(ranked) * percent // 100) - 1)], 1)
        for percent in (50, 90, 99, 100)
    }
