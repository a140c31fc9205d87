"""An attempt at the pending work of a payment, and what it finds."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce

from chassis import current_call
from svc_payment.domain import Payment

#: Records something that the provider said. Applied to the snapshot it was found with, and again to the locked payment.
Change = Callable[[Payment], Payment]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One claimed attempt at the pending work of a payment, which is as it was when it was claimed."""

    payment: Payment
    traceparent: str = ""

    @classmethod
    def of(cls, payment: Payment) -> "Attempt":
        """Return the attempt at a payment that was claimed in the current call, or in none."""
        call = current_call()
        return cls(payment, call.traceparent if call else "")

    @property
    def id(self) -> str:
        """Return the id of the payment."""
        return self.payment.id


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of an attempt: what is to be recorded, and why the work is to be attempted again later, if it is."""

    changes: Sequence[Change] = ()
    error: str = ""

    def apply(self, payment: Payment) -> Payment:
        """Return the payment with the changes recorded; raises ProviderMismatch."""
        return reduce(lambda changed, change: change(changed), self.changes, payment)


class Unclear(Exception):
    """The provider did not say what became of an operation; the text is the cause in one word."""
