"""The stack provides the values that the settings of a service mark as provided."""

import base64
import sys
from dataclasses import dataclass
from types import ModuleType
from typing import Annotated

import pytest

import chassis
from chassis.settings import Provided
from mesh.errors import StackError
from mesh.services import SERVICES
from mesh.stack.provisions import Provisions
from mesh.stack.secrets import ADMIN_EMAIL, Secrets
from mesh.stack.state import State

SIMULATORS = {
    "payment_provider": "127.0.0.1:84",
    "courier": "127.0.0.1:85",
    "message_sender": "127.0.0.1:86",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(chassis.Settings):
    seal_secret: Annotated[str, Provided("secret")] = ""
    owner: Annotated[str, Provided("admin_email")] = ""
    owner_password: Annotated[str, Provided("admin_password")] = ""
    url: Annotated[str, Provided("api_url", "courier")] = ""
    key: Annotated[str, Provided("api_key", "courier")] = ""
    hook: Annotated[str, Provided("webhook_secret", "courier")] = ""
    other: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class WithoutSimulator(chassis.Settings):
    bank_url: Annotated[str, Provided("api_url", "bank")] = ""


@pytest.fixture
def secrets(tmp_path) -> Secrets:
    state = State(tmp_path / "stack")
    state.create()
    return Secrets(state)


@pytest.fixture
def provisions(secrets, monkeypatch) -> Provisions:
    """With two services that no list names."""
    for name, settings in (("svc_new", Settings), ("svc_bank", WithoutSimulator)):
        module = ModuleType(f"{name}.settings")
        module.Settings = settings
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
        monkeypatch.setitem(sys.modules, f"{name}.settings", module)
    return Provisions(secrets, SIMULATORS)


def test_each_kind_of_mark_gives_its_value(provisions, secrets):
    environment = provisions.environment("svc_new")

    assert len(base64.b64decode(environment.pop("SEAL_SECRET"))) == 32
    assert environment == {
        "OWNER": ADMIN_EMAIL,
        "OWNER_PASSWORD": secrets.admin_password,
        "URL": "http://127.0.0.1:85",
        "KEY": secrets.key("courier"),
        "HOOK": secrets.webhook("courier"),
    }


def test_a_generated_secret_stays_the_same(provisions):
    assert provisions.environment("svc_new") == provisions.environment("svc_new")


def test_a_service_starts_after_each_external_api_that_it_calls(provisions):
    assert provisions.external_apis("svc_new") == ("courier",)


def test_an_api_without_a_simulator_is_named(provisions):
    with pytest.raises(StackError, match="svc_bank needs the external API bank"):
        provisions.environment("svc_bank")


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_is_provided_for(provisions, service):
    assert all(provisions.environment(service).values())
    assert set(provisions.external_apis(service)) <= set(SIMULATORS)
