"""The programs of a stack: their order and their environment follow from the contract and from settings."""

import json

import pytest

from mesh.services import SERVICES
from mesh.stack.ports import Ports
from mesh.stack.secrets import Secrets
from mesh.stack.stack import Options, Stack
from mesh.stack.state import State


@pytest.fixture
def state(tmp_path) -> State:
    state = State(tmp_path / "state")
    state.create()
    return state


@pytest.fixture
def programs(state, tmp_path, monkeypatch):
    """The programs of a stack with all its servers, by name; none is started."""
    for name in ("DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP"):
        monkeypatch.delenv(name, raising=False)
    stack = Stack(Options(replicas={"svc_order": 2}), state, Ports(8000), tmp_path)
    return {program.name: program for program in stack.programs}


def test_every_service_is_migrated_before_it_starts(programs):
    assert all("migrations" in programs[name].after for name in (*SERVICES, "svc_order-2"))
    assert set(json.loads(programs["migrations"].env["MIGRATIONS"])) == set(SERVICES)


def test_every_program_starts_after_programs_that_exist(programs):
    assert {name for program in programs.values() for name in program.after} <= set(programs)


def test_a_service_starts_after_the_simulators_whose_apis_its_settings_name(programs):
    simulators = {"payment_provider", "courier"}
    after = {name: simulators & set(programs[name].after) for name in SERVICES}
    assert {name: found for name, found in after.items() if found} == {
        "svc_payment": {"payment_provider"},
        "svc_delivery": {"courier"},
    }


def test_a_service_and_its_simulator_share_the_key_and_the_webhook_secret(programs, state):
    secrets, service, simulator = Secrets(state), programs["svc_delivery"].env, programs["courier"].env
    assert service["COURIER_KEY"] == simulator["API_KEY"] == secrets.key("courier")
    assert service["COURIER_WEBHOOK_SECRET"] == simulator["WEBHOOK_SECRET"] == secrets.webhook("courier")
    assert service["COURIER_URL"] == f"http://{simulator['LISTEN']}"


def test_no_service_sees_a_secret_of_another(programs, state):
    secrets = Secrets(state)
    for api, owner in (("courier", "svc_delivery"), ("payment_provider", "svc_payment")):
        seen = {name for name in SERVICES if secrets.key(api) in programs[name].env.values()}
        assert seen == {owner}
    assert {name for name in SERVICES if secrets.admin_password in programs[name].env.values()} == {"svc_user"}


def test_all_processes_listen_on_ports_of_their_own(programs):
    addresses = [program.address for program in programs.values() if program.address]
    assert len(set(addresses)) == len(addresses)
