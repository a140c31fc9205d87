import dataclasses

import pytest

from mesh.errors import StackError
from mesh.proxy.inputs import IngressInputs
from mesh.services import SERVICES
from mesh.stack.data_dirs import socket_folder
from mesh.stack.ports import address
from mesh.stack.servers.envoy import Envoy, validate
from tests.integration.servers.programs import write_bootstrap


@pytest.fixture
def inputs(ports):
    with socket_folder(None) as folder:
        yield IngressInputs(
            listen=address(ports.entry),
            admin=f"unix:{folder}/admin.sock",
            edge=address(ports.edge),
            reflection=address(ports.reflection),
            services={name: [address(ports.service(number))] for number, name in enumerate(SERVICES)},
        )


async def test_envoy_accepts_the_configuration_of_the_whole_stack(inputs, tmp_path):
    await write_bootstrap(inputs, tmp_path / "bootstrap.pb")
    await validate(tmp_path / "bootstrap.pb")


async def test_envoy_accepts_the_configuration_of_several_processes_of_each_service(inputs, tmp_path):
    several = {name: [where, where.replace("127.0.0.1", "127.0.0.2")] for name, where in flat(inputs).items()}
    await write_bootstrap(dataclasses.replace(inputs, services=several, inner="127.0.0.1:1"), tmp_path / "bootstrap.pb")
    await validate(tmp_path / "bootstrap.pb")


async def test_envoy_accepts_the_configuration_without_any_service(inputs, tmp_path):
    await write_bootstrap(dataclasses.replace(inputs, services={}), tmp_path / "bootstrap.pb")
    await validate(tmp_path / "bootstrap.pb")


async def test_a_configuration_that_envoy_rejects_is_reported_with_its_output(tmp_path):
    (tmp_path / "bootstrap.yaml").write_text("static_resources: {listener: []}")
    with pytest.raises(StackError, match="Envoy rejects") as it:
        await validate(tmp_path / "bootstrap.yaml")
    assert "'listener'" in it.value.log  # the words around it differ in their spaces from build to build


async def test_a_proxy_without_upstreams_is_ready_and_restarts_over_its_own_socket(inputs, tmp_path):
    await write_bootstrap(inputs, tmp_path / "bootstrap.pb")
    for _ in range(2):
        async with Envoy(tmp_path / "bootstrap.pb", admin=inputs.admin):
            pass


def flat(inputs):
    return {name: addresses[0] for name, addresses in inputs.services.items()}
