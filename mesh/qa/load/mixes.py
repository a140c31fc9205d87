"""The mixes of actions, and the order in which a load takes them."""

from collections.abc import Awaitable, Callable, Iterator, Mapping
from enum import StrEnum
from random import Random

from mesh.qa.load import actions, troubles
from mesh.qa.load.shopper import Shopper

Action = Callable[[Shopper], Awaitable[None]]


class Mix(StrEnum):
    """The mixes of actions."""

    shop = "shop"
    browse = "browse"
    checkout = "checkout"
    deliver = "deliver"
    faults = "faults"
    trouble = "trouble"


#: The actions of each mix with their weights.
MIXES: Mapping[Mix, Mapping[Action, int]] = {
    Mix.shop: {
        actions.browse: 55,
        actions.buy: 30,
        actions.buy_with_declined_card: 5,
        actions.buy_and_cancel: 5,
        actions.buy_and_receive: 5,
    },
    Mix.browse: {actions.browse: 1},
    Mix.checkout: {actions.buy: 1},
    Mix.deliver: {actions.buy_and_receive: 1},
    Mix.faults: {
        actions.buy: 2,
        actions.buy_with_fault: 4,
        actions.buy_with_declined_card: 1,
        actions.buy_and_cancel: 2,
        actions.buy_and_receive: 3,
    },
    Mix.trouble: {
        actions.buy_with_fault: 2,
        actions.buy_and_look_up: 2,
        actions.buy_and_cancel: 1,
        actions.buy_and_receive: 1,
        troubles.buy_and_return: 1,
        troubles.buy_and_refuse_parcel: 1,
        troubles.buy_and_fail_to_ship: 1,
        troubles.buy_and_cancel_failed_shipment: 1,
        troubles.buy_with_lapsing_authorization: 1,
        troubles.buy_with_second_card: 1,
        troubles.buy_with_slip: 1,
        troubles.buy_with_declined_capture: 1,
        troubles.change_price: 1,
        troubles.buy_scarce: 4,
        troubles.restock: 1,
    },
}


def has_own_product(mix: Mix) -> bool:
    """Return whether a mix buys of a product that each load makes for itself."""
    return troubles.buy_scarce in MIXES[mix]


def endless(mix: Mix, random: Random) -> Iterator[Action]:
    """Yield the actions of a mix: in each round every one as often as its weight, in another order."""
    while True:
        round_ = [action for action, weight in MIXES[mix].items() for _ in range(weight)]
        random.shuffle(round_)
        yield from round_
