"""How a simulator misbehaves, and when: by the word in a request, by a list, or by chance from a seed."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from mesh.simulators.errors import ApiError
from mesh.simulators.fields import Fields

SLOW_MS = 2_000
DELAY_MS_AT_MOST = 600_000


class Trouble(StrEnum):
    """Kinds of misbehaviour; each simulator has its own words for those that it knows."""

    NONE = "none"
    DECLINED = "declined"
    SLOW = "slow"
    ERROR = "error"  # nothing happened, and the answer is 500
    ERROR_AFTER = "error_after"  # it happened, and the answer is 500
    SILENCE_AFTER = "silence_after"  # it happened, and no answer comes
    WEBHOOK_FIRST = "webhook_first"  # the webhook is delivered before the answer leaves
    DUPLICATE_WEBHOOK = "duplicate_webhook"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    EXPIRED_CARD = "expired_card"
    WRONG_AMOUNT = "wrong_amount"
    WRONG_CURRENCY = "wrong_currency"


@dataclass(frozen=True, slots=True)
class Plan:
    """What one request will meet: a wait before anything happens, then the trouble."""

    trouble: Trouble = Trouble.NONE
    delay_ms: int = 0


UNTROUBLED = Plan()


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """What PUT /v1/faults sets; the whole of it each time, and all of it off when left out."""

    decline_rate: float = 0.0
    error_rate: float = 0.0
    lost_answer_rate: float = 0.0
    delay_ms: int = 0
    duplicate_webhooks: bool = False
    reorder_webhooks: bool = False
    webhook_delay_ms: int = 0
    auto_advance_ms: int = 0
    seed: int = 0
    next: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Faults":
        fields = Fields(values)
        faults = cls(
            decline_rate=fields.share("decline_rate"),
            error_rate=fields.share("error_rate"),
            lost_answer_rate=fields.share("lost_answer_rate"),
            delay_ms=fields.integer("delay_ms", 0, DELAY_MS_AT_MOST, default=0),
            duplicate_webhooks=fields.flag("duplicate_webhooks"),
            reorder_webhooks=fields.flag("reorder_webhooks"),
            webhook_delay_ms=fields.integer("webhook_delay_ms", 0, DELAY_MS_AT_MOST, default=0),
            auto_advance_ms=fields.integer("auto_advance_ms", 0, DELAY_MS_AT_MOST, default=0),
            seed=fields.integer("seed", 0, 2**63 - 1, default=0),
            next=fields.texts("next"),
        )
        fields.end()
        if faults.decline_rate + faults.error_rate + faults.lost_answer_rate > 1:
            raise ApiError(400, "invalid_field", "the three rates add up to more than 1", param="decline_rate")
        return faults


class Vocabulary:
    """The words of one simulator: `[<operation>_]<trouble>`, as in `declined`, `capture_500`, `slow_1500`."""

    def __init__(self, operations: Sequence[str], troubles: Mapping[str, Trouble]) -> None:
        self._troubles = troubles
        operation, trouble = "|".join(operations), "|".join(troubles)
        self._pattern = re.compile(rf"(?:({operation})_)?(?:({trouble})|slow(?:_([0-9]{{1,6}}))?)")

    def read(self, word: str) -> tuple[str | None, Plan] | None:
        """The operation a word is meant for, if it names one, and the plan; None for a word not known."""
        found = self._pattern.fullmatch(word)
        if not found:
            return None
        operation, trouble, milliseconds = found.groups()
        if trouble:
            return operation, Plan(self._troubles[trouble])
        return operation, Plan(Trouble.SLOW, min(int(milliseconds or SLOW_MS), DELAY_MS_AT_MOST))


class Chance:
    """Decides what each request meets under the faults set last."""

    def __init__(self, vocabulary: Vocabulary, declinable: str) -> None:
        self._vocabulary = vocabulary
        self._declinable = declinable
        self.set(Faults())

    def set(self, faults: Faults) -> None:
        if unknown := [word for word in faults.next if self._vocabulary.read(word) is None]:
            raise ApiError(400, "invalid_field", f"not a word of this simulator: {unknown[0][:40]!r}", param="next")
        self.faults = faults
        self._next = list(faults.next)
        self._random = random.Random(faults.seed)  # noqa: S311 - to be repeated, not to be secret

    def as_json(self) -> dict[str, Any]:
        """The faults as set, with what is left of `next`."""
        return asdict(self.faults) | {"next": self._next}

    def plan(self, operation: str, wished: Plan) -> Plan:
        """The list comes before the request's own word, and that before chance."""
        # Drawn for every request, so that the n-th one after a seed always has the n-th number.
        draw = self._random.random()
        by_chance = Plan(self._by_chance(operation, draw))
        plan = self._from_list(operation) or (by_chance if wished.trouble is Trouble.NONE else wished)
        return Plan(plan.trouble, plan.delay_ms + self.faults.delay_ms)

    def _from_list(self, operation: str) -> Plan | None:
        for index, word in enumerate(self._next):
            meant_for, plan = self._vocabulary.read(word) or (None, UNTROUBLED)
            if meant_for in (None, operation):
                del self._next[index]
                return plan
        return None

    def _by_chance(self, operation: str, draw: float) -> Trouble:
        decline_rate = self.faults.decline_rate if operation == self._declinable else 0.0
        shares = (
            (decline_rate, Trouble.DECLINED),
            (self.faults.error_rate, Trouble.ERROR),
            (self.faults.lost_answer_rate, Trouble.ERROR_AFTER),
        )
        for share, trouble in shares:
            if draw < share:
                return trouble
            draw -= share
        return Trouble.NONE
