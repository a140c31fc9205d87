"""An ingress before stand-ins, started once for all of its tests."""

from contextlib import AsyncExitStack
from types import SimpleNamespace

import pytest
import pytest_asyncio

from mesh.proxy.inputs import IngressInputs
from mesh.stack.data_dirs import socket_folder
from mesh.stack.ports import Ports, address, free_base
from mesh.stack.servers.envoy import Envoy
from tests.integration.servers.programs import write_bootstrap
from tests.integration.servers.stand_ins import GrpcServer, http_server


@pytest.fixture
def ports():
    """A range of ports that no other process of the tests uses."""
    ports = Ports(free_base())
    with ports.hold():
        yield ports


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def ingress(tmp_path_factory):
    ports = Ports(free_base())
    orders, users, shipments, reflection = GrpcServer(), GrpcServer(), GrpcServer(), GrpcServer()
    catalogs = [GrpcServer(), GrpcServer()]
    async with AsyncExitStack() as stack:
        stack.enter_context(ports.hold())
        edge = await stack.enter_async_context(http_server())
        inputs = IngressInputs(
            listen=address(ports.entry),
            inner=address(ports.inner),
            admin=f"unix:{stack.enter_context(socket_folder(None))}/admin.sock",
            edge=edge,
            reflection=await stack.enter_async_context(reflection.listening()),
            services={
                "svc_order": [await stack.enter_async_context(orders.listening())],
                "svc_catalog": [await stack.enter_async_context(one.listening()) for one in catalogs],
                "svc_delivery": [await stack.enter_async_context(shipments.listening())],
                "svc_user": [await stack.enter_async_context(users.listening())],
                "svc_inventory": [address(ports.held)],  # nobody is there
            },
        )
        bootstrap = tmp_path_factory.mktemp("ingress") / "bootstrap.pb"
        await write_bootstrap(inputs, bootstrap)
        await stack.enter_async_context(Envoy(bootstrap, admin=inputs.admin, name="ingress"))
        yield SimpleNamespace(
            address=inputs.listen,
            url=f"http://{inputs.listen}",
            inner=inputs.inner,
            admin=inputs.admin,
            missing=address(ports.held),
            orders=orders,
            users=users,
            shipments=shipments,
            catalogs=catalogs,
            reflection=reflection,
            log=bootstrap.with_name("ingress.log"),
        )
