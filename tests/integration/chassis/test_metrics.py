"""The Prometheus endpoint of a process: what its parts record, and the gauges that are read when it is scraped."""

import asyncio
import time

import asyncpg
import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from chassis import Database, Lane, Settings
from chassis.context import Call, enter_call
from chassis.errors import OutcomeUnknown
from chassis.metrics import Gauges, serving_metrics, work_proceeds, work_waits
from chassis.postgres.database import Overloaded
from chassis.postgres.lane import VersionConflict
from chassis.rpc.client import Clients
from chassis.settings import SettingsError
from chassis.testing import eventually
from shop.inventory.v1 import inventory_service_pb2 as pb
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub

GET_STOCK = "/shop.inventory.v1.InventoryService/GetStock"


def samples(text):
    """The values of a scrape by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found, name, **labels):
    return found.get((name, tuple(sorted(labels.items()))), 0.0)


async def scrape(address):
    async with httpx.AsyncClient(trust_env=False) as http:
        response = await http.get(f"http://{address}/metrics")
    assert response.status_code == 200
    return samples(response.text)


@pytest.fixture
def listen(free_port):
    return f"127.0.0.1:{free_port()}"


async def get_stock(request, _context):
    if request.sku == "broken":
        raise RuntimeError
    return pb.Stock()


async def test_served_and_made_calls_are_counted_by_method_and_code(serve, listen):
    async with serve(GetStock=get_stock, settings=Settings(metrics_listen=listen)) as app:
        before = await scrape(listen)
        clients = Clients(f"*={app.address}", "svc_order")
        stub = clients.stub(InventoryServiceStub)
        await stub.GetStock(pb.GetStockRequest(sku="a"))
        with pytest.raises(OutcomeUnknown):
            await stub.GetStock(pb.GetStockRequest(sku="broken"))
        after = await scrape(listen)
        await clients.close()
    for name in ("rpc_server_duration_seconds_count", "rpc_client_duration_seconds_count"):
        for code in ("OK", "INTERNAL"):
            grown = value(after, name, method=GET_STOCK, code=code) - value(before, name, method=GET_STOCK, code=code)
            assert grown == 1, (name, code)


async def test_the_backlog_of_the_outbox_dead_letters_and_the_pool_are_read_on_scrape(
    serve, listen, database_url, redis_url, event_prefix
):
    async def compose(app):
        await app.database()

    connection = await asyncpg.connect(database_url)
    try:
        await connection.execute("INSERT INTO outbox (topic, key, type, payload) VALUES ('t', 'k', 'x', '')")
        await connection.execute(
            "INSERT INTO dead_letter (consumer, event_id, topic, key, type, payload, attempts, error)"
            " VALUES ('svc_toy', gen_random_uuid(), 't', 'k', 'x', '', 5, 'e')"
        )
        # The lock keeps the relay from marking the event as published.
        async with connection.transaction():
            await connection.execute("LOCK TABLE outbox IN SHARE MODE")
            settings = Settings(
                metrics_listen=listen, database_url=database_url, redis_url=redis_url, event_prefix=event_prefix
            )
            async with serve(settings=settings, compose=compose):
                found = await scrape(listen)
                assert value(found, "dead_letters") == 1
                assert value(found, "outbox_unpublished_events") == 1
                assert value(found, "outbox_lag_seconds") > 0
                assert value(found, "db_pool_connections", state="limit") == settings.database_connections
                assert value(found, "db_pool_connections", state="used") >= 1
    finally:
        await connection.close()


async def test_a_gauge_that_fails_is_absent_and_counted_and_the_others_are_shown(listen):
    gauges = Gauges()

    async def fails():
        raise OSError

    async def works():
        return 7.0

    gauges.add("toy_broken", "Fails.", fails)
    gauges.add("toy_value", "Works.", works)
    async with serving_metrics(listen, gauges):
        found = await scrape(listen)
    assert ("toy_broken", ()) not in found
    assert value(found, "toy_value") == 7
    assert value(found, "metrics_unread_gauges_total", gauge="toy_broken") == 1


async def test_many_scrapes_within_seconds_read_a_gauge_once(listen):
    gauges, reads = Gauges(), []

    async def read():
        reads.append(1)
        return float(len(reads))

    gauges.add("toy_reads", "Counts its reads.", read)
    async with serving_metrics(listen, gauges):
        found = [value(await scrape(listen), "toy_reads") for _ in range(5)]
    assert found == [1.0] * 5


async def test_nothing_but_metrics_is_served_and_a_silent_client_blocks_no_other(listen):
    host, port = listen.split(":")
    async with serving_metrics(listen, Gauges()):
        _, silent = await asyncio.open_connection(host, int(port))
        async with httpx.AsyncClient(trust_env=False) as http:
            assert (await http.get(f"http://{listen}/")).status_code == 404
            assert (await http.post(f"http://{listen}/metrics")).status_code == 404
        await scrape(listen)
        silent.close()


async def test_a_port_in_use_is_a_setting_that_cannot_be_used(serve, listen):
    async with serving_metrics(listen, Gauges()):
        with pytest.raises(SettingsError, match="METRICS_LISTEN"):
            async with serve(settings=Settings(metrics_listen=listen)):
                pass


async def test_work_that_waits_is_shown_with_its_reason_until_it_proceeds():
    work_waits("toy", "OSError")
    work_waits("toy", "InterfaceError")
    found = samples((await Gauges().scrape()).decode())
    assert value(found, "background_work_waiting", work="toy", reason="InterfaceError") == 1
    assert ("background_work_waiting", (("reason", "OSError"), ("work", "toy"))) not in found
    work_proceeds("toy")
    assert not [key for key in samples((await Gauges().scrape()).decode()) if ("work", "toy") in key[1]]


async def test_batches_of_the_lane_and_their_conflicts_are_counted():
    before = samples((await Gauges().scrape()).decode())
    attempts = []

    async def apply(requests):
        attempts.append(len(requests))
        if len(attempts) == 1:
            raise VersionConflict
        return requests

    lane = Lane(apply)
    await asyncio.gather(*(lane.submit(number) for number in range(3)))
    after = samples((await Gauges().scrape()).decode())
    assert value(after, "lane_batch_size_sum") - value(before, "lane_batch_size_sum") == 3
    assert value(after, "lane_conflicts_total") - value(before, "lane_conflicts_total") == 1


async def test_a_pool_without_a_free_connection_is_counted(database_url):
    async def timeouts():
        return value(samples((await Gauges().scrape()).decode()), "db_pool_timeouts_total")

    before = await timeouts()
    async with Database.open(database_url, connections=1) as database, database.connection():
        enter_call(Call(method="test", deadline=time.monotonic() + 0.05))
        with pytest.raises(Overloaded):
            async with database.connection():
                pass
        enter_call(None)
    assert await timeouts() == before + 1
    assert await eventually(timeouts) >= 1
