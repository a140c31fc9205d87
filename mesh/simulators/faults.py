"""Fault injection: by a word in a request, by a list of words, or at random from a seed."""

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from mesh.simulators.errors import ApiError
from mesh.simulators.fields import Fields

SLOW_MS = 2_000
MAX_DELAY_MS = 600_000


class Fault(StrEnum):
    """The faults; each simulator has its own words for those that it supports."""

    NONE = "none"
    DECLINED = "declined"
    SLOW = "slow"
    ERROR = "error"  # without effect, and the reply is 500
    ERROR_AFTER = "error_after"  # with its effect, and the reply is 500
    NO_REPLY_AFTER = "no_reply_after"  # with its effect, and without a reply
    WEBHOOK_FIRST = "webhook_first"  # the webhook is delivered before the reply is sent
    DUPLICATE_WEBHOOK = "duplicate_webhook"
    INSUFFICIENT_FUNDS = "insufficient_funds"
    EXPIRED_CARD = "expired_card"
    WRONG_AMOUNT = "wrong_amount"
    WRONG_CURRENCY = "wrong_currency"
    REDIRECT = "redirect"  # the customer has to confirm
    REDIRECT_CONFIRMED = "redirect_confirmed"
    REDIRECT_REFUSED = "redirect_refused"
    REDIRECT_EXPIRED = "redirect_expired"
    SLIP = "slip"  # the customer has to pay in a store
    SLIP_PAID = "slip_paid"
    SLIP_EXPIRED = "slip_expired"
    LAPSING = "lapsing"  # the authorization ends soon
    DISPUTED = "disputed"  # after the capture
    DISPUTE_WON = "dispute_won"
    DISPUTE_LOST = "dispute_lost"


@dataclass(frozen=True, slots=True)
class Plan:
    """The fault of one request, after a delay."""

    fault: Fault = Fault.NONE
    delay_ms: int = 0


NO_FAULT = Plan()


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultConfig:
    """The body of PUT /v1/faults; an absent field is off."""

    decline_rate: float = 0.0
    error_rate: float = 0.0
    lost_answer_rate: float = 0.0
    delay_ms: int = 0
    duplicate_webhooks: bool = False
    reorder_webhooks: bool = False
    webhook_delay_ms: int = 0
    auto_advance_ms: int = 0
    outage: bool = False
    seed: int = 0
    next: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "FaultConfig":
        """Return the validated configuration. Raises ApiError."""
        fields = Fields(values)
        faults = cls(
            decline_rate=fields.share("decline_rate"),
            error_rate=fields.share("error_rate"),
            lost_answer_rate=fields.share("lost_answer_rate"),
            delay_ms=fields.integer("delay_ms", 0, MAX_DELAY_MS, default=0),
            duplicate_webhooks=fields.flag("duplicate_webhooks"),
            reorder_webhooks=fields.flag("reorder_webhooks"),
            webhook_delay_ms=fields.integer("webhook_delay_ms", 0, MAX_DELAY_MS, default=0),
            auto_advance_ms=fields.integer("auto_advance_ms", 0, MAX_DELAY_MS, default=0),
            outage=fields.flag("outage"),
            seed=fields.integer("seed", 0, 2**63 - 1, default=0),
            next=fields.texts("next"),
        )
        fields.end()
        if faults.decline_rate + faults.error_rate + faults.lost_answer_rate > 1:
            raise ApiError(400, "invalid_field", "the three rates add up to more than 1", param="decline_rate")
        return faults


class Vocabulary:
    """The words of one simulator: `[<operation>_]<fault>`, as in `declined`, `capture_500`, `slow_1500`."""

    def __init__(self, operations: Sequence[str], faults: Mapping[str, Fault]) -> None:
        self._faults = faults
        operation, fault = "|".join(operations), "|".join(faults)
        self._pattern = re.compile(rf"(?:({operation})_)?(?:({fault})|slow(?:_([0-9]{{1,6}}))?)")

    def read(self, word: str) -> tuple[str | None, Plan] | None:
        """Return the operation that a word names, if any, and its plan; None for an unknown word."""
        found = self._pattern.fullmatch(word)
        if not found:
            return None
        operation, fault, milliseconds = found.groups()
        if fault:
            return operation, Plan(self._faults[fault])
        return operation, Plan(Fault.SLOW, min(int(milliseconds or SLOW_MS), MAX_DELAY_MS))


class FaultInjector:
    """Plans the fault of each request from the current configuration."""

    def __init__(self, vocabulary: Vocabulary, declinable: str) -> None:
        self._vocabulary = vocabulary
        self._declinable = declinable
        self.set(FaultConfig())

    def set(self, config: FaultConfig) -> None:
        """Replace the configuration. Raises ApiError for an unknown word."""
        if unknown := [word for word in config.next if self._vocabulary.read(word) is None]:
            raise ApiError(400, "invalid_field", f"not a word of this simulator: {unknown[0][:40]!r}", param="next")
        self.config = config
        self._next = list(config.next)
        self._random = random.Random(config.seed)  # noqa: S311 - reproducible, guards nothing

    def as_json(self) -> dict[str, Any]:
        """Return the configuration with the rest of `next`."""
        return asdict(self.config) | {"next": self._next}

    def plan(self, operation: str, requested_fault: Plan) -> Plan:
        """Return the plan of a request: from the list, else from the request, else at random."""
        # Drawn for every request, so that the n-th request after a seed always gets the n-th number.
        draw = self._random.random()
        random_plan = Plan(self._at_random(operation, draw))
        plan = self._from_list(operation) or (random_plan if requested_fault.fault is Fault.NONE else requested_fault)
        return Plan(plan.fault, plan.delay_ms + self.config.delay_ms)

    def _from_list(self, operation: str) -> Plan | None:
        for index, word in enumerate(self._next):
            operation_of_word, plan = self._vocabulary.read(word) or (None, NO_FAULT)
            if operation_of_word in (None, operation):
                del self._next[index]
                return plan
        return None

    def _at_random(self, operation: str, draw: float) -> Fault:
        decline_rate = self.config.decline_rate if operation == self._declinable else 0.0
        shares = (
            (decline_rate, Fault.DECLINED),
            (self.config.error_rate, Fault.ERROR),
            (self.config.lost_answer_rate, Fault.ERROR_AFTER),
        )
        for share, fault in shares:
            if draw < share:
                return fault
            draw -= share
        return Fault.NONE
