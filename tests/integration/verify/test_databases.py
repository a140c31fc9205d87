"""Every check of a service's database finds its violation, and nothing in an empty database."""

import re
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from chassis import Queries
from mesh.qa.verify.checks import EVERYWHERE, read_service
from mesh.qa.verify.copies import MOST_ROWS, Copies
from mesh.qa.verify.verifier import _check_database
from mesh.services import SERVICES

_STOCK = "INSERT INTO stock (sku, location_id, on_hand, version) VALUES ('A', 'here', 5, 1);"
_RECEIVED = """
INSERT INTO movement (sku, location_id, kind, on_hand_delta, allocated_delta, reserved_delta, safety_stock_delta, actor)
VALUES ('A', 'here', 'RECEIVED', 5, 0, 0, 0, 'me');"""
_HELD = """
INSERT INTO reservation (reservation_id, order_id, state, expire_time, version, create_time, update_time)
VALUES ('r', 'o', 'HELD', now() + interval '1 hour', 1, now(), now());"""
_MOVED = """
INSERT INTO movement (sku, location_id, kind, on_hand_delta, allocated_delta, reserved_delta, safety_stock_delta,
    reservation_id, actor)
VALUES ('A', 'here', '{kind}', 0, 0, 0, 0, 'r', 'me');"""
_ORDER = """
INSERT INTO orders (order_id, user_id, state, payment_state, fulfillment_state, currency, subtotal, shipping_fee,
    tax_total, total, shipping_address, slot_id, reservation_id, payment_id, version, create_time, update_time)
VALUES ('o', 'u', '{state}', 'UNPAID', 'UNFULFILLED', 'THB', 100, 10, 7, 110, '', '', 'r', 'p', 1, now(), now());"""
_SAGA = """
INSERT INTO saga (saga_id, order_id, state, step, attempts, next_attempt_time, version, payment_method_token,
    create_time, update_time)
VALUES ('s', 'o', '{state}', '{step}', 1, now(), 1, '{token}', now(), now());"""
_TRANSITION = """
INSERT INTO order_history (order_id, version, from_state, to_state, reason, create_time)
VALUES ('o', {version}, '{before}', '{after}', '', now());"""
_PAYMENT = """
INSERT INTO payment (payment_id, order_id, user_id, amount, currency, token, state, authorized, captured, refunded,
    provider, version)
VALUES ('p', 'o', 'u', 100, 'THB', 'tok_ok', '{state}', {authorized}, {captured}, {refunded}, 'x', 1);"""
_ENTRY = """
INSERT INTO entry (payment_id, operation_id, kind, outcome, amount, provider, reference)
VALUES ('p', '{operation}', '{kind}', '{outcome}', 100, 'x', '{operation}{outcome}');"""
_SLOT = """
INSERT INTO slot (slot_id, zone_id, start_time, end_time, cutoff_time, capacity, booked, version)
VALUES ('s', 'z', now(), now() + interval '1 hour', now(), 5, {booked}, {version});"""
_SHIPMENT = """
INSERT INTO shipment (shipment_id, order_id, user_id, state, shipping_address, slot_id, weight_grams, version,
    create_time, update_time)
VALUES ('s', 'o', 'u', 'LABELLED', '', '', 1, {version}, now(), now());"""
_STAGE = """
INSERT INTO shipment_update (shipment_id, version, state, reason, actor, create_time)
VALUES ('s', {version}, '{state}', '', 'me', now());"""
_ACCOUNT = """
INSERT INTO account (user_id, email, password_hash, registration_id, display_name, phone, roles, version, create_time,
    update_time)
VALUES ('u', 'a@b.co', '$argon2id$', 'r', '', '', '{{{roles}}}', 1, now(), now());"""

#: A violation of each check; foreign keys and triggers are off, so that a single row is enough. A service may have its
#: own in tests/integration/svc_x/violations.sql, under the name of the check.
VIOLATIONS = {
    EVERYWHERE: {
        "stored_reply_is_complete": """INSERT INTO idempotency (principal, method, key, request_hash)
            VALUES ('u', 'm', 'k', '')""",
        "audit_chain_is_intact": """INSERT INTO audit VALUES (2, now(), 'm', '', '', '', 'OK', '{}', 'x', 'y')""",
        "event_is_applied_once": """ALTER TABLE inbox DROP CONSTRAINT inbox_pkey;
            INSERT INTO inbox (consumer, event_id) VALUES ('c', '0b0e1f8c-8e8c-4c56-9d2a-4c2f3f7a9d11'),
                ('c', '0b0e1f8c-8e8c-4c56-9d2a-4c2f3f7a9d11')""",
        "ledgers_are_append_only": "ALTER TABLE audit DISABLE TRIGGER audit_append_only",
        "outbox_is_drained": "INSERT INTO outbox (topic, key, type, payload) VALUES ('t', 'k', 'x', '')",
        "no_dead_letters": """INSERT INTO dead_letter (consumer, event_id, topic, key, type, payload, attempts, error)
            VALUES ('c', gen_random_uuid(), 't', 'k', 'x', '', 5, 'why')""",
    },
    "svc_user": {
        "account_has_admin": "",
        "one_live_token": """DROP INDEX refresh_token_live;
            INSERT INTO refresh_token (token_digest, session_id, create_time)
            VALUES (sha256('1'), 's', now()), (sha256('2'), 's', now())""",
        "stored_successor_means_rotated": """
            ALTER TABLE refresh_token DROP CONSTRAINT refresh_token_check1;
            INSERT INTO refresh_token (token_digest, session_id, create_time, sealed_successor)
            VALUES (sha256('1'), 's', now(), '')""",
        "roles_have_a_history": """INSERT INTO role_change (user_id, actor, roles_before, roles_after, traceparent)
            VALUES ('u', 'me', '{customer}', '{customer,staff}', '')""",  # and is an admin
        "address_book_has_one_default": """INSERT INTO address (address_id, user_id, label, recipient, phone, line1,
            line2, city, region, postal_code, country_code, is_default, version, create_time, update_time)
            VALUES ('a', 'u', '', '', '', '', '', '', '', '', 'TH', false, 1, now(), now())""",
    },
    "svc_catalog": {
        "product_has_variants": """INSERT INTO product (product_id, name, description, brand, status, lowest_price,
            version) VALUES ('p', 'n', '', '', 'ACTIVE', 1, 1)""",
        "lowest_price_is_lowest": """INSERT INTO product (product_id, name, description, brand, status, lowest_price,
            version) VALUES ('p', 'n', '', '', 'ACTIVE', 1, 1);
            INSERT INTO variant (sku, product_id, position, attributes, price, currency, tax_rate_basis_points,
                weight_grams) VALUES ('A', 'p', 1, '{}', 2, 'THB', 0, 0)""",
        "listing_agrees_with_products": """INSERT INTO product (product_id, name, description, brand, status,
            lowest_price, version) VALUES ('p', 'n', '', '', 'ACTIVE', 1, 1)""",
        "categories_are_trees": """INSERT INTO category (category_id, parent_id, name, position, version)
            VALUES ('a', 'b', 'A', 1, 1), ('b', 'a', 'B', 1, 1)""",
    },
    "svc_inventory": {
        "never_oversold": "ALTER TABLE stock DROP CONSTRAINT never_oversold;"
        + _STOCK
        + "UPDATE stock SET reserved = 6",
        "shortfall_comes_from_a_count": _STOCK + "UPDATE stock SET reserved = 6, shortfall = 1",
        "adjustments_are_movements": """INSERT INTO adjustment (adjustment_id, lines, reason, reference, actor,
            create_time) VALUES ('k', '[["a", "bkk", 1]]', 'LOST', '', 'me', now())""",
        "counters_are_reservations": _STOCK + "UPDATE stock SET reserved = 1",
        "counters_are_movements": _STOCK,
        "version_counts_movements": _STOCK + _RECEIVED + "UPDATE stock SET version = 2",
        "reservation_ends_once": _MOVED.format(kind="RESERVED")
        + _MOVED.format(kind="UNRESERVED")
        + _MOVED.format(kind="EXPIRED"),
        "reservation_holds_what_it_kept": _MOVED.format(kind="RESERVED").replace("0, 0, 0, 0", "0, 0, 1, 0"),
        "movements_agree_with_the_state": _HELD + _MOVED.format(kind="RESERVED") + _MOVED.format(kind="SHIPPED"),
        "reservation_holds_something": _HELD,
        "expired_holds_are_released": _HELD + "UPDATE reservation SET expire_time = now() - interval '1 minute'",
    },
    "svc_order": {
        "one_saga_for_each_order": _ORDER.format(state="PENDING"),
        "transitions_are_legal": _TRANSITION.format(version=1, before="CONFIRMED", after="DELIVERED"),
        "transitions_are_a_chain": _ORDER.format(state="PENDING")
        + _TRANSITION.format(version=1, before="", after="PENDING")
        + _TRANSITION.format(version=2, before="PENDING", after="CONFIRMED"),
        "total_is_the_sum": _ORDER.format(state="PENDING"),
        "saga_and_order_agree": _ORDER.format(state="PENDING")
        + _SAGA.format(state="DONE", step="fulfill_reservation", token=""),
        "done_saga_did_all_steps": _SAGA.format(state="DONE", step="fulfill_reservation", token="")
        + """INSERT INTO saga_step (saga_id, name, state, attempts, start_time, update_time)
            VALUES ('s', 'reserve_stock', 'UNKNOWN', 1, now(), now())""",
        "rejections_have_a_reason": _ORDER.format(state="REJECTED")
        + _SAGA.format(state="COMPENSATED", step="reserve_stock", token=""),
        "payment_method_is_deleted": _SAGA.format(state="DONE", step="fulfill_reservation", token="tok_ok"),
        "every_version_has_an_event": _ORDER.format(state="PENDING"),
        "no_order_is_pending": _ORDER.format(state="PENDING")
        + _SAGA.format(state="RUNNING", step="reserve_stock", token="tok_ok"),
        "confirmed_orders_are_paid_for": _ORDER.format(state="CONFIRMED")
        + _SAGA.format(state="RUNNING", step="await_shipment", token="tok_ok"),
        "parked_saga_has_no_unknown_reason": _SAGA.format(state="PARKED", step="await_pickup", token="")
        + "UPDATE saga SET reason = 'UNAVAILABLE'",
        "no_saga_is_running": _SAGA.format(state="COMPENSATING", step="reserve_stock", token="tok_ok"),
    },
    "svc_payment": {
        "amounts_are_entries": _PAYMENT.format(state="AUTHORIZED", authorized=100, captured=0, refunded=0),
        "amounts_are_in_order": "ALTER TABLE payment DROP CONSTRAINT never_overpaid_back;"
        + _PAYMENT.format(state="REFUNDED", authorized=100, captured=50, refunded=60),
        "charged_once": _ENTRY.format(operation="a", kind="CHARGE", outcome="SUCCESS")
        + _ENTRY.format(operation="b", kind="CHARGE", outcome="SUCCESS"),
        "one_payment_for_each_order": "DROP INDEX payment_of_order;"
        + _PAYMENT.format(state="PROCESSING", authorized=0, captured=0, refunded=0)
        + _PAYMENT.replace("'p', 'o'", "'q', 'o'").format(state="PROCESSING", authorized=0, captured=0, refunded=0),
        "state_follows_from_amounts": _PAYMENT.format(state="CAPTURED", authorized=100, captured=0, refunded=0),
        "results_follow_requests": _ENTRY.format(operation="a", kind="CHARGE", outcome="REQUEST")
        + _ENTRY.format(operation="a", kind="REFUND", outcome="SUCCESS"),
        "every_version_has_one_event": _PAYMENT.format(state="PROCESSING", authorized=0, captured=0, refunded=0),
        "no_operation_is_in_flight": _ENTRY.format(operation="a", kind="CHARGE", outcome="REQUEST"),
        "payments_end_in_time": _PAYMENT.format(state="AUTHORIZED", authorized=100, captured=0, refunded=0)
        + "UPDATE payment SET expire_time = now() - interval '1 hour'",
        "changes_of_the_provider_are_noticed": _PAYMENT.format(
            state="REQUIRES_ACTION", authorized=0, captured=0, refunded=0
        ),
        "tokens_are_forgotten": _PAYMENT.format(state="FAILED", authorized=0, captured=0, refunded=0),
        "nothing_waits_for_an_operator": _PAYMENT.format(state="AUTHORIZED", authorized=100, captured=0, refunded=0)
        + "UPDATE payment SET attempts = 3, last_error = 'answer_mismatch'",
        "voided_payments_hold_no_funds": _PAYMENT.format(state="VOIDED", authorized=100, captured=0, refunded=0)
        + _ENTRY.format(operation="a", kind="AUTHORIZATION", outcome="SUCCESS"),
    },
    "svc_delivery": {
        "never_overbooked": _SLOT.format(booked=1, version=1),
        "slot_changes_are_counted": _SLOT.format(booked=0, version=2),
        "shipment_history_is_whole": _SHIPMENT.format(version=2)
        + _STAGE.format(version=1, state="CREATED")
        + _STAGE.format(version=2, state="FAILED"),
        "shipment_transitions_are_legal": _STAGE.format(version=1, state="CREATED")
        + _STAGE.format(version=2, state="DELIVERED"),
        "no_dispatch_is_pending": "INSERT INTO dispatch VALUES ('o', 1, now())",
    },
}
#: svc_user's checks hold only with an admin.
_SETUP = {"svc_user": _ACCOUNT.format(roles="admin")}
#: Cannot be violated in the transaction that checks it; it has a test of its own.
_OPEN_TRANSACTION = "no_transaction_is_left_open"

#: A row that violates a check is named by one of these columns.
NAMES = {"sku", "key", "pid", "name", "what", "problem", "brand", "email", "audit_id"} | {
    f"{what}_id"
    for what in (
        "order",
        "saga",
        "payment",
        "reservation",
        "shipment",
        "slot",
        "product",
        "category",
        "event",
        "user",
        "session",
        "adjustment",
        "return",
    )
}
CHECKS = [
    (service, check) for service in SERVICES for check in read_service(service)[0] if check.name != _OPEN_TRANSACTION
]


def violation(service: str, check: str) -> str:
    """Return the SQL that violates the check, empty when there is none."""
    own = Path(__file__).parents[1] / service / "violations.sql"
    if own.exists() and check in Queries(own).names():
        return getattr(Queries(own), check)
    return VIOLATIONS.get(service, {}).get(check) or VIOLATIONS[EVERYWHERE].get(check, "")


@pytest.mark.parametrize(("service", "check"), CHECKS, ids=lambda one: getattr(one, "name", one))
async def test_a_check_finds_the_rows_that_violate_it(fresh_database, service, check):
    broken, own_id = violation(service, check.name), f"{service.removeprefix('svc_')}_id"
    async with fresh_database(service) as url:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute("SET session_replication_role = replica")
            if check.name != "account_has_admin":
                await connection.execute(_SETUP.get(service, "SELECT"))
                assert await connection.fetch(check.sql) == []
            await connection.execute(broken or "SELECT")
            found = await connection.fetch(check.sql)
            assert len(found) >= 1
            assert all(any(row[name] for name in set(row.keys()) & {*NAMES, own_id}) for row in found)
        finally:
            await connection.close()


async def test_an_open_transaction_is_found_after_five_seconds(fresh_database):
    (check,) = [check for check in read_service("svc_order")[0] if check.name == _OPEN_TRANSACTION]
    at_once = check.sql.replace("5 seconds", "0 seconds")
    assert at_once != check.sql
    async with fresh_database("svc_order") as url:
        idle, asking = await asyncpg.connect(url), await asyncpg.connect(url)
        try:
            assert await asking.fetch(at_once) == []
            async with idle.transaction():
                await idle.execute("SELECT 1")
                assert len(await asking.fetch(at_once)) == 1
                assert await asking.fetch(check.sql) == []
        finally:
            await idle.close()
            await asking.close()


@pytest.mark.parametrize("service", SERVICES)
def test_names_of_checks_are_unique_and_every_check_has_a_description(service):
    checks, copies = read_service(service)
    names = [check.name for check in checks] + [copy.name for copy in copies]
    assert len(set(names)) == len(names)
    assert all(check.description.endswith(".") for check in checks)


async def test_a_table_of_many_rows_is_copied_completely(fresh_database):
    async with fresh_database("svc_catalog") as url:
        connection = await asyncpg.connect(url)
        await connection.execute(
            "INSERT INTO outbox (topic, key, type, payload, publish_time)"
            " SELECT 't', 'k', 'x', '', now() FROM generate_series(1, 12000)"
        )
        await connection.close()
        with closing(Copies()) as copies:
            await _check_database("svc_catalog", url, copies)
            assert copies._database.execute("SELECT count(DISTINCT event_id) FROM event").fetchone()[0] == 12_000


async def test_an_event_that_is_applied_and_dead_lettered_is_found(fresh_database):
    (check,) = [check for check in read_service("svc_order")[0] if check.name == "event_is_applied_once"]
    async with fresh_database("svc_order") as url:
        connection = await asyncpg.connect(url)
        try:
            await connection.execute(
                "INSERT INTO inbox (consumer, event_id) VALUES ('c', gen_random_uuid());"
                "INSERT INTO dead_letter (consumer, event_id, topic, key, type, payload, attempts, error, redrive_time)"
                " SELECT 'c', event_id, 't', 'k', 'x', '', 5, 'why', now() FROM inbox"
            )
            assert await connection.fetch(check.sql) == []
            await connection.execute("UPDATE dead_letter SET redrive_time = NULL")
            assert len(await connection.fetch(check.sql)) == 1
        finally:
            await connection.close()


async def test_every_append_only_table_is_in_the_check_of_their_triggers(fresh_database):
    (check,) = [check for check in read_service("svc_order")[0] if check.name == "ledgers_are_append_only"]
    for service in SERVICES:
        async with fresh_database(service) as url:
            connection = await asyncpg.connect(url)
            tables = await connection.fetch(
                "SELECT tgrelid::regclass::text FROM pg_trigger WHERE tgname LIKE '%append_only'"
            )
            await connection.close()
            assert tables
            assert [name for (name,) in tables if not re.search(rf"\b{name}\b", check.sql)] == []


async def test_more_violations_than_are_shown_are_not_read(fresh_database):
    async with fresh_database("svc_catalog") as url:
        connection = await asyncpg.connect(url)
        await connection.execute(
            "INSERT INTO outbox (topic, key, type, payload) SELECT 't', 'k', 'x', '' FROM generate_series(1, 1200)"
        )
        await connection.close()
        with closing(Copies()) as copies:
            findings = await _check_database("svc_catalog", url, copies)
        assert [len(one.rows) for one in findings if one.check.name == "outbox_is_drained"] == [MOST_ROWS]
