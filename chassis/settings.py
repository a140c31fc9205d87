"""Settings: read once from the environment, frozen afterwards.

A service adds its own fields by inheriting; each field is an environment variable of the same name in capitals.
"""

import os
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, Literal, Self, get_args, get_origin, get_type_hints

from chassis.event_settings import EventSettings


class SettingsError(Exception):
    """A setting is missing or malformed; the text names it."""


@dataclass(frozen=True, slots=True)
class Provided:
    """Marks a setting whose value the deployment provides: `Annotated[str, Provided("api_key", "courier")]`.

    `secret` is a random key, generated at the first start; `admin_*` is the account that is an admin from the
    start; the others belong to the external API that `api` names.
    """

    kind: Literal["secret", "admin_email", "admin_password", "api_url", "api_key", "webhook_secret"]
    api: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(EventSettings):
    """The settings of every service."""

    #: `host:port` that the gRPC server binds; port 0 picks a free one.
    listen: str = "127.0.0.1:0"
    #: The service's own database, as a role that may read and write rows and nothing else.
    database_url: str = ""
    #: The same database as its owner; only `migrate` uses it.
    migration_database_url: str = ""
    #: Connections to the database, at most.
    database_connections: int = 10
    #: Where other services are: `shop.order.v1.OrderService=host:port`, comma-separated; `*=` for the rest.
    upstreams: str = ""
    #: Whether another process may listen on the same port, as one that replaces this one does until this one stops.
    reuse_port: bool = False
    #: Unary calls served at the same time, those from outside at most four fifths of it; more are rejected at once.
    max_concurrent_rpcs: int = 500
    #: Streams served at the same time, which do not count among the calls above.
    max_streams: int = 400
    #: Streams of one client, by user or else by address.
    max_client_streams: int = 40
    #: Seconds after which a stream ends with STREAM_EXPIRED, to be resumed; a shorter timeout of its contract precedes.
    max_stream_seconds: float = 900.0
    #: Bytes of one request message, at most.
    max_request_bytes: int = 262_144
    #: Seconds that calls in progress have at shutdown.
    drain_seconds: float = 10.0
    #: The `iss` that access tokens must carry.
    token_issuer: str = "https://shopmesh.local"  # noqa: S105  no secret
    #: The `aud` that access tokens must carry.
    token_audience: str = "shopmesh"  # noqa: S105  no secret
    #: A JWKS document over HTTP that replaces svc_user's keys: any OIDC issuer can stand in.
    jwks_url: str = ""
    #: An OpenTelemetry collector; empty exports no spans. OpenTelemetry reads its other OTEL_* variables itself.
    otel_exporter_otlp_endpoint: str = ""
    #: `host:port` of the Prometheus endpoint, on loopback or a network that only operators reach; empty serves none.
    metrics_listen: str = ""
    #: Least level that is logged: DEBUG also logs every request message, redacted.
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read every field from the environment; raises SettingsError naming the first invalid one."""
        source = os.environ if environ is None else environ
        types = get_type_hints(cls)
        values: dict[str, Any] = {
            field.name: _parse(field.name.upper(), types[field.name], source[field.name.upper()])
            for field in fields(cls)
            if field.name.upper() in source
        }
        for field in fields(cls):
            if field.name not in values and field.default is MISSING and field.default_factory is MISSING:
                raise SettingsError(f"{field.name.upper()} is not set")
        return cls(**values)

    @classmethod
    def provided(cls) -> dict[str, Provided]:
        """Return the fields that the deployment provides, by name."""
        hints = get_type_hints(cls, include_extras=True)
        marks = {name: getattr(hint, "__metadata__", ()) for name, hint in hints.items()}
        return {name: mark for name, found in marks.items() for mark in found if isinstance(mark, Provided)}

    def require(self, *names: str) -> None:
        """Raise SettingsError for the first of these that is empty: serving requires them, migrating does not."""
        for name in names:
            if not getattr(self, name):
                raise SettingsError(f"{name.upper()} is not set")


def _parse(name: str, kind: Any, text: str) -> object:
    if get_origin(kind) is Literal:
        return _choose(name, {str(choice): choice for choice in get_args(kind)}, text)
    if kind is bool:  # bool("false") is True
        return _choose(name, {"true": True, "false": False}, text)
    try:
        return kind(text)
    except ValueError:
        raise SettingsError(f"{name} must be {kind.__name__}, not {text!r}") from None


def _choose(name: str, choices: Mapping[str, object], text: str) -> object:
    for word, choice in choices.items():
        if word.lower() == text.lower():
            return choice
    raise SettingsError(f"{name} must be {' or '.join(choices)}, not {text!r}")
