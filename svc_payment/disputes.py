"""Finds disputes whose webhooks were lost: a captured payment is not polled, the list of open disputes is."""

from chassis import Database
from chassis.external.api import Ok
from chassis.work.worker import Worker
from svc_payment import store
from svc_payment.attempts import Attempt, Finding
from svc_payment.provider import PaymentProvider


async def find_disputes(db: Database, provider: PaymentProvider, worker: Worker[Attempt, Finding]) -> bool:
    """Have the state of each payment fetched whose dispute is not recorded; return False: nothing more is listed."""
    match await provider.list_open_disputes():
        case Ok(references) if references:
            async with db.transaction() as tx:
                if await store.make_disputed_due(tx, references):
                    db.on_commit(tx, worker.wake)
    return False
