"""Settings are read from the environment, typed, and an invalid one is named."""

from dataclasses import FrozenInstanceError, dataclass
from typing import Annotated

import pytest

import chassis
from chassis.settings import Provided, SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(chassis.Settings):
    api_key: str
    patience_seconds: float = 1.5
    eager: bool = False
    courier_key: Annotated[str, Provided("api_key", "courier")] = ""


def test_every_field_is_read_by_its_name_in_capitals():
    settings = Settings.from_env(
        {"API_KEY": "k", "PATIENCE_SECONDS": "2.5", "DATABASE_CONNECTIONS": "3", "EVENTS": "kafka", "EAGER": "True"}
    )
    assert settings == Settings(api_key="k", patience_seconds=2.5, database_connections=3, events="kafka", eager=True)


def test_a_missing_setting_has_its_default():
    settings = Settings.from_env({"API_KEY": "k", "UNRELATED": "x"})
    assert (settings.patience_seconds, settings.events, settings.eager) == (1.5, "redis", False)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("DATABASE_CONNECTIONS", "many"),
        ("DATABASE_CONNECTIONS", "1.5"),
        ("PATIENCE_SECONDS", ""),
        ("EVENTS", "kafak"),
        ("EAGER", "maybe"),
        ("LOG_LEVEL", "LOUD"),
    ],
)
def test_a_value_of_the_wrong_type_is_rejected_by_name(name, text):
    with pytest.raises(SettingsError, match=name):
        Settings.from_env({"API_KEY": "k", name: text})


def test_a_choice_may_be_lower_case():
    assert Settings.from_env({"API_KEY": "k", "LOG_LEVEL": "debug"}).log_level == "DEBUG"


def test_a_missing_value_is_rejected_by_name():
    with pytest.raises(SettingsError, match="API_KEY is not set"):
        Settings.from_env({})


def test_settings_are_immutable():
    with pytest.raises(FrozenInstanceError):
        Settings(api_key="k").api_key = "other"


def test_the_process_environment_is_the_default(monkeypatch):
    monkeypatch.setenv("API_KEY", "from-env")
    assert Settings.from_env().api_key == "from-env"


def test_the_settings_that_the_deployment_provides_are_found_by_their_mark():
    assert Settings.provided() == {"courier_key": Provided("api_key", "courier")}


def test_a_provided_setting_is_read_from_the_environment_like_any_other():
    assert Settings.from_env({"API_KEY": "k", "COURIER_KEY": "c"}).courier_key == "c"
