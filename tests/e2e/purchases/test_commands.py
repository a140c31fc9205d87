"""The commands that need a shop: sample-data, demo, load, verify."""

import asyncio
import json
import re
from dataclasses import replace

import pytest

from mesh.alerts.rules import firing
from mesh.alerts.scraping import samples
from mesh.qa.load.mixes import MIXES, Mix
from mesh.qa.load.troubles import SEEN
from mesh.qa.sample_data.loader import load
from mesh.qa.sample_data.people import admin, courier, staff
from mesh.qa.sample_data.shop import Level, sample_shop
from mesh.stack.scrapes import scrape
from mesh.stack.secrets import Secrets
from shop.catalog.v1.catalog_service_pb2 import Product
from tests.e2e.purchases.databases import database
from tests.e2e.stacks import Cli

#: Alerts on durations, of which a test machine has too few processors to keep any.
OF_A_BUSY_MACHINE = {"SlowRequestsP95", "SlowRequestsP99", "EventLoopLag"}


def test_a_ready_stack_has_the_sample_data_and_loading_them_again_changes_nothing(stack):
    info = stack.json("sample-data")
    assert info["made"] == {}
    assert info["kept"]["products"] >= 300
    again = stack.run("sample-data")
    assert again.returncode == 0
    assert again.stdout == f"nothing to do: all {sum(info['kept'].values())} exist\n"


async def test_an_interrupted_load_of_sample_data_is_resumed(stack, market):
    whole, secrets = sample_shop(), Secrets(stack.state)
    product = Product()
    product.CopyFrom(whole.products[0])
    sku = await market.new_sku(1)
    product.product_id, product.variants[0].sku = f"product-{sku}".lower(), f"{sku}-2"
    del product.variants[1:]
    levels = (Level(f"{sku}-2", "bangkok", 5), Level(sku, "phuket", 7))
    more = replace(whole, products=(*whole.products, product), levels=(*whole.levels, *levels))
    people = (staff(secrets), courier(secrets))
    report = await asyncio.create_task(load(f"*={stack.info['grpc']}", admin(secrets), people, more, lambda _: None))
    assert report.made == {"products": 1, "stock levels": 2}
    assert report.kept["products"] == len(whole.products)
    again = await asyncio.create_task(load(f"*={stack.info['grpc']}", admin(secrets), people, more, lambda _: None))
    assert again.made.total() == 0


def test_the_demo_completes_a_purchase(stack):
    info = stack.json("demo")
    assert info["ok"] is True
    assert [step["title"] for step in info["steps"]][:2] == ["Register", "Sign in"]
    assert info["order"]["state"] == "ORDER_STATE_DELIVERED"
    assert info["shipment"]["state"] == "SHIPMENT_STATE_DELIVERED"
    assert info["payment"]["capturedAmount"] == info["order"]["total"]
    moves = [move["toState"].removeprefix("ORDER_STATE_") for move in info["timeline"]["transitions"]]
    assert moves == ["PENDING", "CONFIRMED", "SHIPPED", "DELIVERED"]
    assert {step["state"] for step in info["timeline"]["steps"]} == {"SAGA_STEP_STATE_DONE"}


def test_the_demo_without_a_terminal_is_plain_text_of_eighty_columns(stack):
    done = stack.run("demo")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "DELIVERED" in done.stdout


def names(found):
    return {one.alert.name for one in found}


def test_no_alert_fires_on_a_healthy_run(stack):
    processes = stack.state.read().processes
    before = scrape(processes)
    earlier = firing(samples(processes, before, before))  # what other tests have left behind
    info = stack.json("load", "--seconds", "60", "--orders", "20", "--concurrency", "2", "--mix", "deliver")
    assert info["orders"]["CONFIRMED"] >= 20
    found = firing(samples(processes, before, scrape(processes)))
    assert names(found) - names(earlier) <= OF_A_BUSY_MACHINE


def test_every_invariant_holds_after_a_load_in_which_all_that_can_go_wrong_has(stack, tmp_path):
    history = tmp_path / "history.jsonl"
    size = ("--orders", str(sum(MIXES[Mix.trouble].values())), "--seconds", "120", "--concurrency", "4")
    info = stack.json("load", *size, "--mix", "trouble", "--history", str(history))
    assert set(SEEN) - set(info["seen"]) == set()
    lines = [json.loads(line) for line in history.read_text().splitlines()]
    assert len(lines) == info["operations"] > 0
    assert {line["outcome"] for line in lines} <= {"ok", "fail", "unknown"}
    assert all(line["invoke"] <= line["complete"] for line in lines)
    assert sum(info["orders"].values()) == info["requests"]["order"]["ok"]
    assert info["requests"]["order"]["p50_ms"] <= info["requests"]["order"]["p99_ms"]
    verdict = stack.json("verify", "--wait", "60", "--history", str(history))
    assert verdict["ok"] is True
    assert {check["where"] for check in verdict["checks"]} == {*stack.info["services"], "together", "history"}


def test_a_load_stops_after_so_many_orders(stack):
    info = stack.json("load", "--seconds", "60", "--orders", "5", "--concurrency", "2", "--mix", "checkout")
    assert 5 <= sum(info["orders"].values()) <= 6


async def test_verify_shows_the_rows_that_violate_an_invariant(stack):
    assert stack.json("verify", "--wait", "60")["ok"], "all that was bought before has come to its end"
    one = "sku = 'BEANS-DOI-CHANG-250' AND location_id = 'bangkok'"
    async with database(stack, "shop_inventory") as connection:
        await connection.execute(f"UPDATE stock SET reserved = reserved + 1 WHERE {one}")
        try:
            done = stack.run("verify", "--json")
            shown = stack.run("verify")
        finally:
            await connection.execute(f"UPDATE stock SET reserved = reserved - 1 WHERE {one}")
    assert done.returncode == shown.returncode == 1
    broken = {check["name"]: check["rows"] for check in json.loads(done.stdout)["checks"] if check["rows"]}
    assert set(broken) == {"counters_are_reservations", "counters_are_movements", "published_stock_is_the_level"}
    assert [row["sku"] for row in broken["counters_are_reservations"]] == ["BEANS-DOI-CHANG-250"]
    assert "BEANS-DOI-CHANG-250" in shown.stdout
    assert re.search(r"^3 of \d+ invariants are violated", shown.stdout, re.MULTILINE)


async def test_verify_finds_an_order_of_the_history_that_does_not_exist(stack, tmp_path):
    history = tmp_path / "history.jsonl"
    line = {"op": 1, "kind": "order", "key": "k", "outcome": "ok", "order_id": "order-never", "state": "CONFIRMED"}
    history.write_text(json.dumps(line) + "\n")
    done = stack.run("verify", "--json", "--history", str(history))
    assert done.returncode == 1
    broken = {check["name"]: check["rows"] for check in json.loads(done.stdout)["checks"] if check["rows"]}
    assert [row["order_id"] for row in broken["acknowledged_order_exists"]] == ["order-never"]


@pytest.mark.parametrize("command", ["sample-data", "demo", "load", "verify"])
def test_a_command_without_a_stack_is_an_error_with_a_fix(tmp_path, command):
    done = Cli(tmp_path / "none").run(command)
    assert done.returncode == 1
    assert "no stack is ready" in done.stderr
    assert "shopmesh up" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [("--seconds", "0"), ("--seconds", "7200"), ("--concurrency", "0"), ("--mix", "chaos"), ("--orders", "-1")],
)
def test_a_load_outside_of_its_bounds_is_an_error(stack, arguments):
    done = stack.run("load", *arguments)
    assert done.returncode == 2
    assert arguments[0] in done.stderr


def test_operators_show_sagas_and_cannot_retry_one_that_is_done(stack):
    order_id = stack.json("demo")["order"]["orderId"]
    saga = stack.json("saga", "show", order_id)
    assert (saga["orderId"], saga["state"]) == (order_id, "SAGA_STATE_DONE")
    listed = stack.json("saga", "list", "--state", "done")["sagas"]
    assert {one["state"] for one in listed} == {"SAGA_STATE_DONE"}
    assert saga["sagaId"] not in [one["sagaId"] for one in stack.json("orders", "stuck").get("sagas", ())]
    rejected = stack.run("saga", "retry", order_id, "--why", "a test")
    assert rejected.returncode == 1
    assert "is DONE" in rejected.stderr
    unsettled = stack.run("saga", "settle", order_id, "--why", "a test")
    assert (unsettled.returncode, "is DONE" in unsettled.stderr) == (1, True)
    assert stack.json("refunds", "list").get("returns", []) == []
    assert "does not exist" in stack.run("refunds", "settle", "return-none", "--why", "a test").stderr
    unclear = stack.run("saga", "retry", order_id, "--all", "--why", "a test")
    assert "either one saga" in unclear.stderr
    assert stack.json("saga", "retry", "--reason", "NO_SUCH_REASON", "--why", "a test") == {"sagaIds": []}
