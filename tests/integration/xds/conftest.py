"""A control plane in this process, and an Envoy that serves several workloads from it."""

from contextlib import AsyncExitStack
from datetime import timedelta
from types import SimpleNamespace

import pytest
import pytest_asyncio

from mesh.pki.authority import Authority
from mesh.pki.rotation import Rotation
from mesh.policy.compiler import compile_policy
from mesh.stack.data_dirs import socket_folder
from mesh.stack.ports import Ports, address, free_base
from mesh.stack.servers.envoy import Envoy
from mesh.xds.bootstrap import node_bootstrap
from mesh.xds.server import ControlPlane, serving
from mesh.xds.snapshots import Placement, Process, snapshot_of
from tests.integration.servers.stand_ins import GrpcServer

WORKLOADS = ("edge_gateway", "svc_inventory", "svc_order", "svc_user")


class Mesh:
    """What a test uses: where workloads call, what runs behind them, and the control plane."""

    def __init__(self, folder, ports, stack):
        self.folder, self.ports, self._stack = folder, ports, stack
        self.policy = compile_policy()
        self.authority = Authority.open(folder / "pki", self.policy.deployment.trust_domain)
        ids = map(self.policy.spiffe_id, self.policy.workloads)
        self.rotation = Rotation(self.authority, ids, lifetime=timedelta(hours=1))
        self.plane = ControlPlane()
        self.inventories = [GrpcServer(), GrpcServer()]
        self.users = GrpcServer()
        self.topology = {}
        self._serving = AsyncExitStack()

    @property
    def control_plane(self):
        return self.folder / "ads.sock"

    async def start(self):
        inventories = [await self._stack.enter_async_context(one.listening()) for one in self.inventories]
        users = await self._stack.enter_async_context(self.users.listening())
        inbound = [address(self.ports.service(number)) for number in range(3)]
        self.topology = {
            "edge_gateway": Placement((), self.outbound("edge_gateway")),
            "svc_order": Placement((), self.outbound("svc_order")),
            "svc_inventory": Placement(tuple(map(Process, inventories, inbound)), self.outbound("svc_inventory")),
            "svc_user": Placement((Process(users, inbound[2]),)),
        }
        self.publish()
        await self.start_control_plane()
        for name, delta in (("shared", True), ("whole", False)):
            path = self.folder / f"{name}.pb"
            admin = f"unix:{self.folder}/{name}.admin"
            plane = f"unix:{self.control_plane}"
            path.write_bytes(bytes(node_bootstrap(name, control_plane=plane, admin=admin, delta=delta)))
            await self._stack.enter_async_context(Envoy(path, admin=admin, name=name))

    async def start_control_plane(self):
        await self._serving.enter_async_context(serving(self.plane, self.control_plane))

    async def stop_control_plane(self):
        await self._serving.aclose()

    def publish(self, *, policy=None, topology=None):
        """Publish what is given, or the mesh as it is; `whole` is a second proxy for the calls of the edge alone."""
        policy, topology = policy or self.policy, topology or self.topology
        edge = topology | {"edge_gateway": Placement((), self.outbound("whole"))}
        self.plane.publish(
            {
                "shared": snapshot_of(policy, topology, self.rotation, WORKLOADS),
                "whole": snapshot_of(policy, edge, self.rotation, ["edge_gateway"]),
            }
        )

    def outbound(self, caller):
        return {callee: self.out(caller, callee) for callee in ("svc_inventory", "svc_user")}

    def out(self, caller, callee):
        return f"unix:{self.folder}/{caller}.{callee}"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def the_mesh():
    ports = Ports(free_base())
    async with AsyncExitStack() as stack:
        stack.enter_context(ports.hold())
        mesh = Mesh(stack.enter_context(socket_folder(None)), ports, stack)
        stack.push_async_callback(mesh.stop_control_plane)
        await mesh.start()
        yield mesh


@pytest.fixture
def mesh(the_mesh):
    """The mesh, which is as it was before when the test ends."""
    yield the_mesh
    the_mesh.publish()


@pytest.fixture
def called(mesh):
    """Counters of calls, empty."""
    for one in (*mesh.inventories, mesh.users):
        one.calls.clear()
    return SimpleNamespace(inventories=[one.calls for one in mesh.inventories], users=mesh.users.calls)
