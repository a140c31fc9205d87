"""Invariants between services: every check finds its violation, and nothing in a consistent shop."""

import json
from contextlib import closing

import pytest

from mesh.errors import StackError
from mesh.qa.verify.checks import HISTORY, TOGETHER, read_shared
from mesh.qa.verify.copies import Copies, Table, check_together
from mesh.qa.verify.history_reader import copy_history

AUTHORIZED = "shop.payment.v1.PaymentAuthorized"


def order(number, state, **changes):
    return {
        "order_id": f"o{number}",
        "user_id": "u",
        "state": state,
        "payment_state": "UNPAID",
        "fulfillment_state": "UNFULFILLED",
        "total": 100,
        "payment_amount": 100,
        "currency": "THB",
        "slot_id": "",
        "reservation_id": f"r{number}",
        "payment_id": f"p{number}",
        "shipment_id": "",
        "saga_state": "RUNNING",
        "saga_step": "await_shipment",
    } | changes


def payment(number, state, **changes):
    return {
        "payment_id": f"p{number}",
        "order_id": f"o{number}",
        "user_id": "u",
        "state": state,
        "amount": 100,
        "authorized": 100,
        "captured": 0,
        "refunded": 0,
        "currency": "THB",
        "provider_id": f"pay{number}",
        "void_requested": 0,
        "captured_at_once": 0,
    } | changes


def charge(number, kind):
    told = {"reference": f"p{number}", "kind": kind, "status": None, "amount": 100, "currency": "THB"}
    return told | {"consignment_id": None}


def a_good_shop():
    """An order that is confirmed, one that was rejected, one that was delivered."""
    delivered = {"payment_state": "PAID", "fulfillment_state": "DELIVERED", "shipment_id": "s3", "saga_state": "DONE"}
    return {
        "orders": [
            order(1, "CONFIRMED", payment_state="AUTHORIZED", slot_id="slot"),
            order(2, "REJECTED", saga_state="COMPENSATED"),
            order(3, "DELIVERED", **delivered),
        ],
        "line": [{"order_id": f"o{number}", "sku": "A", "quantity": 2} for number in (1, 2, 3)],
        "reservation": [
            {"reservation_id": "r1", "order_id": "o1", "state": "CONFIRMED"},
            {"reservation_id": "r2", "order_id": "o2", "state": "RELEASED"},
            {"reservation_id": "r3", "order_id": "o3", "state": "FULFILLED"},
        ],
        "allocation": [{"reservation_id": f"r{number}", "sku": "A", "quantity": 2} for number in (1, 2, 3)],
        "payment": [
            payment(1, "AUTHORIZED"),
            payment(2, "FAILED", authorized=0, provider_id=None),
            payment(3, "CAPTURED", captured=100),
        ],
        "booking": [
            {"order_id": "o1", "slot_id": "slot", "state": "BOOKED"},
            {"order_id": "o2", "slot_id": "slot", "state": "RELEASED"},
        ],
        "shipment": [
            {"shipment_id": "s3", "order_id": "o3", "user_id": "u", "state": "DELIVERED", "consignment_id": "c3"}
        ],
        "refund": [{"return_id": "t3", "order_id": "o3", "refund": 0}],
        "charge": [charge(1, "authorized"), charge(3, "authorized"), charge(3, "captured")],
        "parcel": [
            {
                "reference": "s3",
                "kind": None,
                "status": status,
                "amount": None,
                "currency": None,
                "consignment_id": "c3",
            }
            for status in ("LABELLED", "DELIVERED")
        ],
        "event": [event(1), event(2)],
        "published": [{"event_id": f"e{number}", "topic": "t", "key": "p1", "expected": 1} for number in (1, 2)],
        "applied": [applied(1), applied(2)],
        "level": [{"sku": "A", "location_id": "here", "version": 7, "available": 5}],
        "stock_changed": [{"sku": "A", "location_id": "here", "version": 7, "available": 5}],
        "dead_lettered": [{"consumer": "nobody", "event_id": "e0"}],
        "answer": [{"key": "k1", "rejected": 0}, {"key": "k4", "rejected": 1}],
        "operation": [
            operation(1, "k1", "ok", order_id="o1", state="CONFIRMED"),
            operation(2, "k2", "ok", order_id="o2", state="REJECTED"),
            operation(3, "k3", "unknown"),
            operation(4, "k4", "fail", reason="PRICE_CHANGED"),
        ],
    }


def event(number):
    plain = {"event_id": f"e{number}", "topic": "t", "key": "p1", "type": AUTHORIZED}
    return plain | {"position": number, "published": 1}


def applied(number):
    return {"consumer": "svc_order", "event_id": f"e{number}", "apply_time": number, "recent": 1}


def operation(op, key, outcome, *, order_id=None, state=None, reason=None):
    return {
        "op": op,
        "kind": "order",
        "key": key,
        "outcome": outcome,
        "order_id": order_id,
        "state": state,
        "reason": reason,
    }


def found(shop):
    tables = [(name, Table(tuple(rows[0]), [tuple(row.values()) for row in rows])) for name, rows in shop.items()]
    return {finding.check.name: finding.rows for finding in check_together(tables) if finding.rows}


def change(name, number, **changes):
    return lambda shop: shop[name][number].update(changes)


def add(name, row):
    return lambda shop: shop[name].append(row)


def another_parcel(state):
    return {"shipment_id": "s3-2", "order_id": "o3", "user_id": "u", "state": state, "consignment_id": ""}


def set_state(shop, order_state, shipment_state):
    shop["orders"][2].update(state=order_state)
    shop["shipment"][0].update(state=shipment_state)


#: One or more violations of each check.
VIOLATIONS = [
    (
        "everything_belongs_to_an_order",
        add("reservation", {"reservation_id": "r9", "order_id": "o9", "state": "RELEASED"}),
    ),
    ("everything_belongs_to_an_order", add("booking", {"order_id": "o9", "slot_id": "slot", "state": "RELEASED"})),
    ("everything_belongs_to_an_order", change("payment", 0, user_id="another")),
    ("everything_belongs_to_an_order", change("shipment", 0, order_id="o9")),
    ("ordered_units_are_allocated", change("allocation", 0, quantity=1)),
    ("ordered_units_are_allocated", change("allocation", 2, sku="B")),
    ("cancelled_order_holds_nothing", change("reservation", 1, state="HELD")),
    ("cancelled_order_holds_nothing", change("payment", 1, state="AUTHORIZED")),
    ("cancelled_order_holds_nothing", change("booking", 1, state="BOOKED")),
    ("confirmed_order_has_everything", change("reservation", 0, state="EXPIRED")),
    ("confirmed_order_has_everything", change("payment", 0, amount=99)),
    ("confirmed_order_has_everything", change("payment", 0, currency="JPY")),
    ("confirmed_order_has_everything", change("booking", 0, slot_id="another")),
    ("confirmed_order_has_everything", lambda shop: shop["booking"].pop(0)),
    ("shipped_order_is_paid", change("payment", 2, captured=99)),
    ("shipped_order_is_paid", change("payment", 0, captured=100)),
    ("shipped_order_is_paid", change("reservation", 2, state="CONFIRMED")),
    ("shipment_and_order_agree", change("orders", 2, shipment_id="")),
    ("shipment_and_order_agree", change("shipment", 0, state="IN_TRANSIT")),
    ("shipment_and_order_agree", add("shipment", another_parcel("LABELLED"))),
    ("shipment_and_order_agree", lambda shop: set_state(shop, "SHIPPED", "RETURNED")),
    ("returns_are_refunded", change("refund", 0, refund=50)),
    ("payment_state_agrees", change("orders", 0, payment_state="PAID")),
    ("payments_and_provider_agree", add("charge", charge(1, "captured"))),
    ("payments_and_provider_agree", add("charge", charge(9, "authorized"))),
    ("payments_and_provider_agree", add("charge", charge(1, "expired"))),
    ("currencies_agree", change("charge", 0, currency="XTS")),
    ("provider_knows_our_payments", lambda shop: shop["charge"].pop(0)),
    ("no_order_is_paid_twice", add("charge", charge(3, "captured"))),
    ("no_order_is_paid_twice", add("charge", charge(1, "authorized"))),
    ("courier_and_shipments_agree", change("shipment", 0, consignment_id="c9")),
    ("courier_and_shipments_agree", change("parcel", 0, reference="s9")),
    ("orders_applied_every_event", change("applied", 0, consumer="another")),
    ("events_are_applied_in_order", change("applied", 1, apply_time=0)),
    ("applied_events_were_committed", add("applied", applied(3))),
    ("published_events_are_on_the_bus", lambda shop: shop["published"].pop()),
    ("bus_has_only_committed_events", change("published", 1, event_id="e9")),
    ("published_stock_is_the_level", change("stock_changed", 0, available=6)),
    ("acknowledged_order_exists", change("operation", 0, order_id="o9")),
    ("rejected_request_did_nothing", change("answer", 1, rejected=0)),
    ("repeated_request_has_one_reply", change("operation", 1, key="k1")),
    ("acknowledged_final_state_is_kept", change("operation", 0, state="CANCELLED")),
    ("seen_state_never_goes_back", change("operation", 1, state="CONFIRMED")),
]


def test_a_consistent_shop_has_no_findings():
    assert found(a_good_shop()) == {}


@pytest.mark.parametrize(("name", "breaks"), VIOLATIONS, ids=[f"{name}-{n}" for n, (name, _) in enumerate(VIOLATIONS)])
def test_a_check_finds_the_rows_that_violate_it(name, breaks):
    shop = a_good_shop()
    breaks(shop)
    assert name in found(shop)


def test_every_check_has_a_violation_that_is_tested():
    checks = {check.name for where in (TOGETHER, HISTORY) for check in read_shared(where)}
    assert {name for name, _ in VIOLATIONS} == checks


def test_an_authorization_of_another_amount_or_currency_that_was_voided_is_no_finding():
    shop = a_good_shop()
    shop["charge"] += [charge(2, kind) | {"amount": 99, "currency": "XTS"} for kind in ("authorized", "voided")]
    assert found(shop) == {}
    shop["charge"].pop()
    assert "payments_and_provider_agree" in found(shop)


def test_a_slip_is_captured_before_its_parcel_leaves():
    shop = a_good_shop()
    shop["payment"][0].update(state="CAPTURED", captured=100, captured_at_once=1)
    shop["orders"][0]["payment_state"] = "PAID"
    shop["charge"].append(charge(1, "captured"))
    assert found(shop) == {}


def test_an_authorization_that_was_renewed_is_no_finding():
    shop = a_good_shop()
    shop["charge"] += [charge(1, "expired"), charge(1, "reauthorized")]
    assert found(shop) == {}


def test_a_dead_lettered_event_counts_as_consumed():
    shop = a_good_shop()
    shop["applied"].pop(0)
    shop["dead_lettered"].append({"consumer": "svc_order", "event_id": "e1"})
    assert found(shop) == {}


def test_an_event_that_was_redriven_may_be_applied_after_later_ones():
    shop = a_good_shop()
    shop["applied"][0]["apply_time"] = 9
    assert "events_are_applied_in_order" in found(shop)
    shop["dead_lettered"].append({"consumer": "svc_order", "event_id": "e1"})
    assert found(shop) == {}


def test_events_before_the_first_that_the_bus_has_were_trimmed():
    shop = a_good_shop()
    shop["published"].pop(0)
    assert found(shop) == {}


def test_an_event_that_was_published_during_the_check_is_no_finding():
    shop = a_good_shop()
    shop["published"].append({"event_id": "e9", "topic": "t", "key": "p1", "expected": 0})
    assert found(shop) == {}


def test_a_parked_saga_may_hold_stock_and_funds():
    shop = a_good_shop()
    shop["orders"][0].update(saga_state="PARKED", payment_state="UNPAID")
    assert found(shop) == {}


def read(path):
    with closing(Copies()) as copies:
        copy_history(path, copies)
        return [tuple(row) for row in copies._database.execute("SELECT * FROM operation")]


def test_a_history_is_read_line_by_line(tmp_path):
    path = tmp_path / "history.jsonl"
    path.write_text(json.dumps(operation(1, "k1", "ok", order_id="o1", state="CONFIRMED") | {"invoke": 0.5}) + "\n")
    assert read(path) == [(1, "order", "k1", "ok", "o1", "CONFIRMED", None)]


@pytest.mark.parametrize("content", ["not json\n", "[1]\n", None])
def test_a_file_that_is_no_history_is_an_error(tmp_path, content):
    path = tmp_path / "history.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StackError, match="cannot be read"):
        read(path)


def many(orders):
    """The good shop, copied until it has so many orders."""
    for name, rows in a_good_shop().items():
        keys = [column for column in rows[0] if column.endswith(("_id", "key", "reference", "sku"))]
        yield (
            name,
            Table(
                tuple(rows[0]),
                [
                    tuple((row | {key: f"{row[key]}-{copy}" for key in keys if row[key]}).values())
                    for copy in range(orders // 3)
                    for row in rows
                ],
            ),
        )


def test_the_work_of_the_checks_grows_no_faster_than_the_data():
    steps = {}
    for orders in (300, 3000):
        with closing(Copies()) as copies:
            for name, table in many(orders):
                copies.insert(name, table)
            counted = []
            copies._database.set_progress_handler(lambda counted=counted: counted.append(1), 100)
            assert [finding.check.name for finding in copies.check() if finding.rows] == []
            steps[orders] = len(counted)
    assert steps[3000] < 15 * steps[300]
