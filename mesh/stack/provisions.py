"""Values for the settings that services mark as provided by the deployment."""

from collections.abc import Mapping
from importlib import import_module

from chassis.settings import Provided
from mesh.errors import StackError
from mesh.stack.secrets import ADMIN_EMAIL, Secrets


class Provisions:
    """The provided settings of the services of one stack."""

    def __init__(self, secrets: Secrets, external_apis: Mapping[str, str]) -> None:
        """`external_apis` are the addresses of the simulators, by the API that each stands for."""
        self._secrets = secrets
        self._external_apis = external_apis

    def environment(self, service: str) -> dict[str, str]:
        """Return the service's provided settings as environment variables. Raises StackError."""
        return {name.upper(): self._value(service, name, mark) for name, mark in _provided(service).items()}

    def external_apis(self, service: str) -> tuple[str, ...]:
        """Return the external APIs that the service calls, each once."""
        return tuple(dict.fromkeys(mark.api for mark in _provided(service).values() if mark.api))

    def _value(self, service: str, name: str, mark: Provided) -> str:
        if mark.api and mark.api not in self._external_apis:
            raise StackError(
                f"{service} needs the external API {mark.api}, which has no simulator",
                fix=f"name one of {', '.join(self._external_apis)} in {service}/settings.py",
            )
        match mark.kind:
            case "secret":
                return self._secrets.random_key(f"{service}.{name.removesuffix('_secret')}")
            case "admin_email":
                return ADMIN_EMAIL
            case "admin_password":
                return self._secrets.admin_password
            case "api_url":
                return f"http://{self._external_apis[mark.api]}"
            case "api_key":
                return self._secrets.key(mark.api)
            case "webhook_secret":
                return self._secrets.webhook(mark.api)


def _provided(service: str) -> dict[str, Provided]:
    marks: dict[str, Provided] = import_module(f"{service}.settings").Settings.provided()
    return marks
