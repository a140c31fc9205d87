"""A service as a process: it serves, drains, and ends; an error at its start is one line."""

import asyncio
import signal
import socket

import asyncpg
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chassis import Settings
from chassis.testing import client_for, eventually
from shop.inventory.v1 import inventory_service_pb2 as pb
from shop.inventory.v1.inventory_errors import SkuNotFound
from shop.inventory.v1.inventory_service_pb2_grpc import InventoryServiceStub

SERVICE = "shop.inventory.v1.InventoryService"
PASSWORD = "canary-9f2c"
OTHER_SESSIONS = """
SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"""


async def test_a_service_serves_until_sigterm_and_then_drains(start, environment):
    connection = await asyncpg.connect(environment["DATABASE_URL"])
    await connection.execute("INSERT INTO stock (sku, location_id, on_hand, version) VALUES ('a', 'bkk', 5, 1)")
    await connection.close()
    async with start(**environment, DRAIN_SECONDS="20") as service:
        address = (await service.said("serving"))["address"]
        async with (
            client_for(address, InventoryServiceStub) as client,
            grpc.aio.insecure_channel(address) as channel,
        ):
            with pytest.raises(SkuNotFound):
                await client.GetStock(pb.GetStockRequest(sku="other"))
            health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
            assert (await health.read()).status == health_pb2.HealthCheckResponse.SERVING
            watch = channel.unary_stream(
                f"/{SERVICE}/WatchAvailability",
                pb.WatchAvailabilityRequest.SerializeToString,
                pb.WatchAvailabilityResponse.FromString,
            )(pb.WatchAvailabilityRequest(skus=["a"]), metadata=(("x-shop-caller", "edge"),))
            assert (await watch.read()).stock.available == 5
            service.child.send_signal(signal.SIGTERM)
            assert (await health.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            with pytest.raises(grpc.aio.AioRpcError) as told:
                await watch.read()
            assert told.value.code() is grpc.StatusCode.UNAVAILABLE
            health.cancel()
        assert await service.ended() == 0
    messages = [line["message"] for line in service.lines]
    assert messages[0] == "serving"
    assert "draining" in messages
    assert all(line["level"] in ("INFO", "WARNING") for line in service.lines)


async def test_a_service_ends_soon_after_sigterm_while_redis_is_unavailable(start, environment):
    async with start(**{**environment, "REDIS_URL": "unix:///nowhere/redis.sock"}, DRAIN_SECONDS="0.1") as service:
        await service.said("serving")
        service.child.send_signal(signal.SIGTERM)
        assert await service.ended() == 0


async def test_a_port_in_use_is_named(start, environment):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        async with start(**environment, LISTEN=address) as service:
            assert await service.ended() == 2
    (line,) = service.lines
    assert address in line["message"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"DATABASE_CONNECTIONS": "many"}, "DATABASE_CONNECTIONS"),
        ({"DATABASE_CONNECTIONS": "2"}, "DATABASE_CONNECTIONS"),
        ({"EVENTS": "pigeons"}, "EVENTS"),
        ({"UPSTREAMS": "nonsense"}, "UPSTREAMS"),
        ({"LISTEN": "nowhere"}, "nowhere"),
        ({"DATABASE_URL": f"postgresql://svc:{PASSWORD}@127.0.0.1:1/x"}, "DATABASE_URL"),
        ({"DATABASE_URL": f"mysql://svc:{PASSWORD}@127.0.0.1:1/x"}, "DATABASE_URL"),
        ({"DATABASE_URL": ""}, "DATABASE_URL"),
        ({"LOG_LEVEL": "LOUD"}, "LOG_LEVEL"),
        ({"REDIS_URL": ""}, "REDIS_URL"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
async def test_an_error_at_start_is_one_line_without_secrets(start, environment, changes, said):
    async with start(**environment | changes) as service:
        assert await service.ended() == 2
    (line,) = service.lines
    assert (line["service"], line["level"]) == ("svc_inventory", "ERROR")
    assert said in line["message"]
    assert PASSWORD not in str(line)


async def test_a_role_that_the_database_rejects_is_one_line(start, environment):
    url = environment["DATABASE_URL"].replace("//postgres:", "//nobody_knows_it:")
    async with start(**environment | {"DATABASE_URL": url}) as service:
        assert await service.ended() == 2
    (line,) = service.lines
    assert "DATABASE_URL" in line["message"]


async def test_migrate_brings_the_database_up_to_date_and_ends(start, postgres, environment):
    async with start("migrate", **environment) as service:
        assert await service.ended() == 0
    (line,) = service.lines
    assert (line["message"], line["applied"]) == ("migrated", [])


async def test_migrate_reports_its_failure(start, environment):
    async with start("migrate", MIGRATION_DATABASE_URL=f"postgresql://svc:{PASSWORD}@127.0.0.1:1/x") as service:
        assert await service.ended() == 2
    (line,) = service.lines
    assert PASSWORD not in str(line)


@pytest.mark.parametrize("failure", [ValueError, asyncio.CancelledError])
async def test_background_work_that_ends_by_itself_ends_the_process(serve, failure):
    """Even by a cancellation that leaked out of it: a service would otherwise run on without its relay."""
    told = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.set)

    async def fail():
        raise failure

    async def compose(app):
        app.background(fail())

    try:
        async with serve(compose=compose), asyncio.timeout(30):
            await told.wait()
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGTERM)


async def test_background_work_that_is_cancelled_at_shutdown_is_no_failure(serve, log):
    async def compose(app):
        app.background(asyncio.Event().wait())

    async with serve(compose=compose):
        pass
    assert "background work failed" not in log.text


async def test_a_service_with_the_fewest_connections_works(start, environment):
    async with start(**environment, DATABASE_CONNECTIONS="3") as service:
        address = (await service.said("serving"))["address"]
        connection = await asyncpg.connect(environment["DATABASE_URL"])
        await connection.execute("INSERT INTO outbox (topic, key, type, payload) VALUES ('t', 'k', 't', '')")
        async with client_for(address, InventoryServiceStub) as client:
            with pytest.raises(SkuNotFound):
                await client.GetStock(pb.GetStockRequest(sku="other"))
        await eventually(lambda: connection.fetchval("SELECT publish_time FROM outbox"))
        await connection.close()


async def test_the_lines_of_calls_are_written_while_the_service_runs_and_at_its_end(start, environment):
    async with start(**environment, DRAIN_SECONDS="0.1") as service:
        address = (await service.said("serving"))["address"]
        async with client_for(address, InventoryServiceStub) as client:
            await client.BatchGetStock(pb.BatchGetStockRequest(skus=["a"]))
            assert (await service.said("rpc"))["method"] == f"/{SERVICE}/BatchGetStock"
            await client.BatchGetStock(pb.BatchGetStockRequest(skus=["b"]))
        service.child.send_signal(signal.SIGTERM)
        assert await service.ended() == 0
    assert [line["code"] for line in service.lines if line["message"] == "rpc"] == ["OK", "OK"]


async def test_an_idle_service_closes_the_connections_that_it_does_not_use(
    serve, database_url, redis_url, event_prefix, monkeypatch
):
    """Beside that of its lease and its change feed it needs one now and then."""
    monkeypatch.setattr("chassis.postgres.database._IDLE_SECONDS", 0.5)
    settings = Settings(database_url=database_url, redis_url=redis_url, event_prefix=event_prefix)

    async def compose(app):
        await app.database()

    observer = await asyncpg.connect(database_url)
    async with serve(settings=settings, compose=compose):
        await eventually(lambda: observer.fetchval(OTHER_SESSIONS), lambda sessions: sessions > 2)
        await eventually(lambda: observer.fetchval(OTHER_SESSIONS), lambda sessions: sessions <= 2)
    await observer.close()
