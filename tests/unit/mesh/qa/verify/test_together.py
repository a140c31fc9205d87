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
        "settled": 0,
        "currency": "THB",
        "slot_id": "",
        "reservation_id": f"r{number}",
        "payment_id": f"p{number}",
        "shipment_id": "",
        "saga_state": "RUNNING",
        "saga_step": "await_shipment",
        "version": 3,
        "create_time": 10.0 * number,
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
            order(11, "CONFIRMED", payment_state="AUTHORIZED"),
        ],
        "line": [{"order_id": f"o{number}", "sku": "A", "quantity": 2} for number in (1, 2, 3, 11)],
        "reservation": [
            {"reservation_id": "r1", "order_id": "o1", "state": "CONFIRMED"},
            {"reservation_id": "r2", "order_id": "o2", "state": "RELEASED"},
            {"reservation_id": "r3", "order_id": "o3", "state": "FULFILLED"},
            {"reservation_id": "r11", "order_id": "o11", "state": "CONFIRMED"},
        ],
        "allocation": [{"reservation_id": f"r{number}", "sku": "A", "quantity": 2} for number in (1, 2, 3, 11)],
        "payment": [
            payment(1, "AUTHORIZED"),
            payment(2, "FAILED", authorized=0, provider_id=None),
            payment(3, "CAPTURED", captured=100),
            payment(11, "AUTHORIZED"),
        ],
        "booking": [
            {"order_id": "o1", "slot_id": "slot", "state": "BOOKED"},
            {"order_id": "o2", "slot_id": "slot", "state": "RELEASED"},
        ],
        "shipment": [
            {"shipment_id": "s3", "order_id": "o3", "user_id": "u", "state": "DELIVERED", "consignment_id": "c3"}
        ],
        "refund": [{"return_id": "t3", "order_id": "o3", "refund": 0}],
        "order_return": [{"return_id": "t3", "order_id": "o3", "state": "COMPLETED"}],
        "charge": [charge(1, "authorized"), charge(3, "authorized"), charge(3, "captured"), charge(11, "authorized")],
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
        "answer": [answer(1), answer(2), answer(3), answer(11), answer(4) | {"rejected": 1, "order_id": None}],
        "operation": [
            operation(1, order_id="o1", state="CONFIRMED", version=3),
            operation(2, order_id="o2", state="REJECTED", version=2),
            operation(3, outcome="unknown"),
            operation(4, outcome="fail", reason="PRICE_CHANGED"),
            operation(5, order_id="o1", state="CONFIRMED", version=3, kind="get_order"),
            operation(6, kind="price"),
            operation(7, kind="stock"),
            operation(8, kind="heal"),
            operation(9, kind="deliver", order_id="o3", shipment_id="s3", shipment_state="DELIVERED"),
            operation(10, kind="get_return", order_id="o3", return_id="t3"),
            operation(11, order_id="o11", state="CONFIRMED", version=3),
            operation(12, order_id="o2", kind="cancel"),
        ],
        "decision": [{"order_id": f"o{number}", "decision_time": 10.0 * number + 5} for number in (1, 2, 3, 11)],
        "bought": [
            {"op": op, "sku": "A", "quantity": 2, "unit_price": f"{price}.0"} for op, price in ((1, 50), (11, 51))
        ],
        "stock_read": [{"op": 7, "sku": "A", "location_id": "here", "available": 8}],
        "price_change": [{"op": 6, "sku": "A", "version": 2}],
        "price": [
            {"sku": "A", "version": 1, "price": "50.0", "create_time": 0.0},
            {"sku": "A", "version": 2, "price": "51.0", "create_time": 61.0},
        ],
        "stock_state": [
            stock_state(1, "RECEIVED", 10, on_hand_delta=10),
            stock_state(2, "RESERVED", 8, reservation_id="r1", create_time=11.0),
            stock_state(3, "RESERVED", 6, reservation_id="r11", create_time=111.0),
        ],
    }


def answer(number):
    return {"key": f"k{number}", "rejected": 0, "create_time": 1.0 * number, "order_id": f"o{number}"}


def stock_state(position, kind, available, **changes):
    state = {"sku": "A", "location_id": "here", "position": position, "kind": kind, "available": available}
    return state | {"on_hand_delta": 0, "reservation_id": "", "create_time": 0.0} | changes


def operation(op, **changes):
    """A request that takes nine seconds, one after the other."""
    return {
        "op": op,
        "kind": "order",
        "key": f"k{op}",
        "session": "s",
        "invoke": 10.0 * op,
        "complete": 10.0 * op + 9,
        "outcome": "ok",
        "order_id": None,
        "state": None,
        "version": None,
        "user_id": "u",
        "return_id": None,
        "shipment_id": None,
        "shipment_state": None,
        "reason": None,
    } | changes


def event(number):
    plain = {"event_id": f"e{number}", "topic": "t", "key": "p1", "type": AUTHORIZED}
    return plain | {"position": number, "published": 1}


def applied(number):
    return {"consumer": "svc_order", "event_id": f"e{number}", "apply_time": number, "recent": 1}


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


def swap_positions(states):
    states[1]["position"], states[2]["position"] = 3, 2


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
    ("rejected_request_did_nothing", change("answer", 4, rejected=0)),
    ("repeated_request_has_one_reply", change("operation", 1, key="k1")),
    ("acknowledged_final_state_is_kept", change("operation", 0, state="CANCELLED")),
    ("seen_state_never_goes_back", change("operation", 1, state="CONFIRMED")),
    ("acknowledged_version_is_kept", change("operation", 4, version=4)),
    ("acknowledged_cancellation_is_kept", change("operation", 11, order_id="o1")),
    ("acknowledged_shipment_is_kept", change("operation", 8, shipment_id="s9")),
    ("acknowledged_shipment_is_kept", change("operation", 8, shipment_state="RETURNED")),
    ("acknowledged_return_exists", change("operation", 9, return_id="t9")),
    ("reply_is_the_stored_one", change("answer", 0, order_id="o3")),
    ("request_is_applied_once", lambda shop: shop["answer"].pop(2)),
    # A state from before an order that was confirmed earlier, one that never was, and one of later.
    ("stock_that_was_read_existed", change("stock_read", 0, available=10)),
    ("stock_that_was_read_existed", change("stock_read", 0, available=7)),
    ("stock_that_was_read_existed", change("stock_read", 0, available=6)),
    ("reservations_are_in_real_time_order", lambda shop: swap_positions(shop["stock_state"])),
    ("clients_bought_at_most_the_stock", change("bought", 0, quantity=9)),
    ("own_order_is_found", change("operation", 4, outcome="fail", state=None, version=None, reason="ORDER_NOT_FOUND")),
    ("session_sees_versions_grow", change("operation", 4, version=2)),
    # A price that was replaced before, and one of later.
    ("prices_were_current", change("bought", 1, unit_price="50.0")),
    ("prices_were_current", change("bought", 0, unit_price="51.0")),
    ("orders_are_decided_in_time", change("decision", 3, decision_time=1000.0)),
    ("errors_end_with_the_faults", lambda shop: shop["operation"].append(operation(13, outcome="unknown"))),
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


def read(path, table="operation"):
    with closing(Copies()) as copies:
        copy_history(path, copies)
        return [tuple(row) for row in copies._database.execute(f"SELECT * FROM {table}")]


def test_a_history_is_read_line_by_line(tmp_path):
    path = tmp_path / "history.jsonl"
    line = operation(1, order_id="o1", state="CONFIRMED", version=3)
    more = {"lines": [["A", 2, "50.0"]], "stock": [["A", "here", 8]]}
    path.write_text(json.dumps(line | more) + "\n" + json.dumps({"op": 2, "kind": "x", "outcome": "fail"}) + "\n")
    first, second = read(path, "operation")
    assert first == tuple(line.values())
    assert second[0] == 2
    assert read(path, "bought") == [(1, "A", 2, "50.0")]
    assert read(path, "stock_read") == [(1, "A", "here", 8)]


@pytest.mark.parametrize("content", ["not json\n", "[1]\n", None])
def test_a_file_that_is_no_history_is_an_error(tmp_path, content):
    path = tmp_path / "history.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(StackError, match="cannot be read"):
        read(path)


def lines_of(shop):
    """The history of a shop as the load writes it."""
    lines = {one["op"]: {name: value for name, value in one.items() if value is not None} for one in shop["operation"]}
    for op, *line in (row.values() for row in shop["bought"]):
        lines[op].setdefault("lines", []).append(line)
    for op, *level in (row.values() for row in shop["stock_read"]):
        lines[op].setdefault("stock", []).append(level)
    for op, sku, version in (row.values() for row in shop["price_change"]):
        lines[op] |= {"skus": [sku], "version": version}
    return list(lines.values())


#: What a client may have seen of a shop that is broken, and the check that finds it.
DOCTORED = {
    "a lost acknowledged write": ("acknowledged_order_exists", lambda lines: lines[0].update(order_id="o9")),
    "a lost acknowledged change": ("acknowledged_version_is_kept", lambda lines: lines[0].update(version=4)),
    "one key applied twice": ("repeated_request_has_one_reply", lambda lines: lines[10].update(key="k1")),
    "a stored reply that is not the one sent": ("reply_is_the_stored_one", lambda lines: lines[0].update(key="k11")),
    "a read that goes backwards": ("session_sees_versions_grow", lambda lines: lines[4].update(version=2)),
    "an oversold SKU": ("clients_bought_at_most_the_stock", lambda lines: lines[0].update(lines=[["A", 9, "50.0"]])),
    "stock from before a confirmed order": (
        "stock_that_was_read_existed",
        lambda lines: lines[6].update(stock=[["A", "here", 10]]),
    ),
    "a price that was replaced": ("prices_were_current", lambda lines: lines[10].update(lines=[["A", 2, "50.0"]])),
}


@pytest.mark.parametrize("fault", ["none", *DOCTORED])
def test_a_doctored_history_is_found(tmp_path, fault):
    shop, path = a_good_shop(), tmp_path / "history.jsonl"
    lines = lines_of(shop)
    check, doctor = DOCTORED.get(fault, ("", lambda _: None))
    doctor(lines)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with closing(Copies()) as copies:
        for name in shop.keys() - {"operation", "bought", "stock_read", "price_change"}:
            copies.insert(name, Table(tuple(shop[name][0]), [tuple(row.values()) for row in shop[name]]))
        copy_history(path, copies)
        violated = {finding.check.name: finding.rows for finding in copies.check() if finding.rows}
    assert (check in violated) if check else violated == {}
    if check:
        assert all(row.keys() & {"op", "order_id", "key", "sku"} for row in violated[check])


def many(orders):
    """The good shop, copied until it has so many orders."""
    for name, rows in a_good_shop().items():
        table = [tuple(renamed(row, copy).values()) for copy in range(orders // 4) for row in rows]
        yield name, Table(tuple(rows[0]), table)


def renamed(row, copy):
    keys = [column for column in row if column.endswith(("_id", "key", "reference", "sku", "session"))]
    number = {"op": row["op"] + 100 * copy} if "op" in row else {}
    return row | {key: f"{row[key]}-{copy}" for key in keys if row[key]} | number


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
