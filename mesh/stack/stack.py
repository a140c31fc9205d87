"""The local stack as a list of programs, each with its environment and its dependencies; nothing is started here."""

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import shop
from mesh.errors import StackError
from mesh.proxy.inputs import IngressInputs
from mesh.services import SERVICES, upstreams
from mesh.stack.databases import ServiceDatabase
from mesh.stack.environment import inherited, python
from mesh.stack.kafka_server import KafkaServer
from mesh.stack.ports import Ports, address
from mesh.stack.process import Program
from mesh.stack.provisions import Provisions
from mesh.stack.readiness import grpc_answers, grpc_serving, http_answers, http_ok, tcp_open
from mesh.stack.redis_servers import RedisServers
from mesh.stack.secrets import Secrets
from mesh.stack.servers.envoy import Envoy
from mesh.stack.servers.postgres import Postgres
from mesh.stack.state import State

EDGE = "edge_gateway"
_MIGRATIONS = "migrations"
#: More than its drain, 5 s, and the end of its background work, 10 s, can take.
_SERVICE_STOP_SECONDS = 20.0
#: The paths of the webhooks that the simulators of external APIs send, if they do.
_WEBHOOKS = {"payment_provider": "/v1/webhooks/payment", "courier": "/v1/webhooks/courier"}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The options of a stack."""

    events: Literal["redis", "kafka"] = "redis"
    port_base: int = 8000
    replicas: Mapping[str, int] = field(default_factory=dict)
    mesh: bool = True
    sample_data: bool = True
    #: Seconds between two liveness probes of a process; 0 for none.
    probe_seconds: float = 5.0
    #: The size at which the log of a process begins anew, and the number of its files.
    log_megabytes: int = 32
    log_files: int = 4


class Stack:
    """The programs and addresses of one stack."""

    def __init__(self, options: Options, state: State, ports: Ports, run: Path) -> None:
        """`run` is a folder with a short path for Unix sockets."""
        self.options = options
        self._state = state
        self._secrets = Secrets(state)
        self._ports = ports
        self._run = run
        self._external_apis = {
            "payment_provider": address(ports.payment_provider),
            "courier": address(ports.courier),
            "message_sender": address(ports.message_sender),
        }
        self._provisions = Provisions(self._secrets, self._external_apis)
        self._addresses = _assign(options, ports)
        self._database = os.environ.get("DATABASE_URL", "")
        self._redis = RedisServers(state.folder, run, self._secrets, options.events)
        self._kafka = KafkaServer(state.folder, ports, self._secrets) if options.events == "kafka" else None
        self._servers = tuple(self._server_programs())
        self.programs: tuple[Program, ...] = (
            *self._servers,
            *self._simulators(),
            self._migrations(),
            *(program for name in SERVICES for program in self._service(name)),
            self._edge(),
            *(self._ingress() if options.mesh else ()),
            *(self._sample_data() if options.sample_data else ()),
        )

    @property
    def entry(self) -> str:
        """The URL for everything from outside."""
        return f"http://{address(self._ports.entry)}"

    @property
    def grpc(self) -> str | None:
        """The address for gRPC from outside; None without the ingress."""
        return address(self._ports.entry) if self.options.mesh else None

    @property
    def services(self) -> dict[str, str]:
        """The address of each service's first process."""
        return {name: addresses[0] for name, addresses in self._addresses.items()}

    @property
    def listening(self) -> dict[str, int]:
        """The port of every listener by its process, those that users know first."""
        programs = reversed(self.programs)
        listeners = {p.name: p.address for p in programs if p.address and not p.address.startswith("unix:")}
        listeners |= {f"{p.name} (metrics)": p.metrics for p in self.programs if p.metrics}
        if self._inner:
            listeners["ingress (inner)"] = self._inner
        listeners["edge_gateway (reflection)"] = address(self._ports.reflection)
        return {name: int(where.rpartition(":")[2]) for name, where in listeners.items()}

    @property
    def _inner(self) -> str:
        replicated = any(len(addresses) > 1 for addresses in self._addresses.values())
        return address(self._ports.inner) if replicated and self.options.mesh else ""

    def _server_programs(self) -> Iterator[Program]:
        if not self._database:
            postgres = Postgres(self._state.folder / "postgres", self._folder("postgres"))
            self._database = postgres.url
            yield postgres.program()
        yield from self._redis.programs()
        if self._kafka:
            yield from self._kafka.programs()

    def _simulators(self) -> Iterator[Program]:
        for name, where in self._external_apis.items():
            yield Program(
                name=name,
                argv=python(f"mesh.simulators.{name}"),
                env=inherited()
                | {
                    "LISTEN": where,
                    "API_KEY": self._secrets.key(name),
                    "WEBHOOK_URL": self.entry + _WEBHOOKS[name] if name in _WEBHOOKS else "",
                    "WEBHOOK_SECRET": self._secrets.webhook(name),
                    "STATE_FILE": str(self._state.folder / f"{name}.sqlite"),
                },
                ready=http_ok(where, "/healthz"),
                address=where,
            )

    def _migrations(self) -> Program:
        """Return the program that migrates all databases: a process for each would spend a second on its imports."""
        databases = [self._service_database(name) for name in SERVICES]

        async def create() -> None:
            await asyncio.gather(*(database.create() for database in databases))

        return Program(
            name=_MIGRATIONS,
            argv=python("mesh.stack.migrations"),
            env=inherited() | {"MIGRATIONS": json.dumps({one.service: one.owner_url for one in databases})},
            prepare=create,
            after=tuple(program.name for program in self._servers if program.name == "postgres"),
            start_seconds=120.0,
        )

    def _service_database(self, name: str) -> ServiceDatabase:
        return ServiceDatabase(
            service=name,
            server=self._database,
            password=self._secrets.database(name),
            owner_password=self._secrets.database_owner(name),
        )

    def _service(self, name: str) -> Iterator[Program]:
        database = self._service_database(name)
        servers = tuple(program.name for program in self._servers)
        env = self._service_env(name)
        for number, where in enumerate(self._addresses[name], 1):
            metrics = address(self._ports.metrics(int(where.rpartition(":")[2])))
            yield Program(
                name=name if number == 1 else f"{name}-{number}",
                argv=python(name),
                env=env | {"LISTEN": where, "DATABASE_URL": database.url, "METRICS_LISTEN": metrics},
                ready=grpc_serving(where),
                alive=grpc_answers(where),
                hands_over=True,
                address=where,
                stop_seconds=_SERVICE_STOP_SECONDS,
                metrics=metrics,
                after=(*servers, *self._provisions.external_apis(name), _MIGRATIONS),
            )

    def _service_env(self, name: str) -> dict[str, str]:
        env = inherited() | {
            "EVENTS": self.options.events,
            "UPSTREAMS": _joined(self._upstreams()),
            "TOKEN_ISSUER": "https://shopmesh.local",
            "TOKEN_AUDIENCE": "shopmesh",
            "DRAIN_SECONDS": "5",
            "REUSE_PORT": "true",
        }
        kafka = self._kafka.environment(name) if self._kafka else {}
        return env | self._redis.environment(name) | kafka | self._provisions.environment(name)

    def _edge(self) -> Program:
        where = address(self._ports.edge if self.options.mesh else self._ports.entry)
        metrics = address(self._ports.edge_metrics)
        behind = ("--trusted-hops", "1") if self.options.mesh else ("--cors-origin", "*")
        return Program(
            name=EDGE,
            argv=python(
                EDGE,
                *("--descriptor-set", str(Path(shop.__path__[0], "shop.binpb"))),
                *(flag for service, to in self._upstreams().items() for flag in ("--upstream", f"{service}={to}")),
                *("--listen", where, "--reflection-listen", address(self._ports.reflection)),
                *("--metrics-listen", metrics),
                *("--static-dir", str(Path(__file__).with_name("live_page"))),
                *("--drain", "5", *behind),
            ),
            env=inherited(),
            # Its /healthz reports the services behind it, of which one may be missing.
            ready=tcp_open(where),
            alive=http_answers(where, "/livez"),
            address=where,
            metrics=metrics,
            after=tuple(self._service_processes()),
        )

    def _ingress(self) -> Iterator[Program]:
        folder = self._folder("ingress", self._state.folder)
        inputs, bootstrap = folder / "inputs.json", folder / "bootstrap.pb"
        admin = f"unix:{self._run}/ingress.sock"

        async def write_inputs() -> None:
            IngressInputs(
                listen=address(self._ports.entry),
                admin=admin,
                edge=address(self._ports.edge),
                reflection=address(self._ports.reflection),
                services=self._addresses,
                inner=self._inner,
            ).write(inputs)

        yield Program(
            name="ingress.render",
            argv=python("mesh.proxy", str(inputs), str(bootstrap)),
            env=inherited(),
            prepare=write_inputs,
        )
        envoy = Envoy(bootstrap, admin=admin, name="ingress")
        yield envoy.program(address=address(self._ports.entry), after=("ingress.render", EDGE))

    def _sample_data(self) -> Iterator[Program]:
        where = {"*": self.grpc} if self.grpc else self._upstreams()
        yield Program(
            name="sample_data",
            argv=python("mesh.qa.sample_data", str(self._state.folder), _joined(where)),
            env=inherited(),
            after=("ingress" if self.options.mesh else EDGE,),
            start_seconds=120.0,
        )

    def _upstreams(self) -> dict[str, str]:
        """Return the address of each gRPC service: its process, or the proxy in front of several."""
        where = {name: one[0] if len(one) == 1 else self._inner for name, one in self._addresses.items()}
        # Calls to a service that is not installed fail with UNAVAILABLE: nothing listens on the held port.
        return upstreams(where) | {"*": address(self._ports.held)}

    def _service_processes(self) -> Iterator[str]:
        for name, addresses in self._addresses.items():
            yield name
            yield from (f"{name}-{number}" for number in range(2, len(addresses) + 1))

    def _folder(self, name: str, parent: Path | None = None) -> Path:
        folder = (parent or self._run) / name
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder


def _joined(upstreams: Mapping[str, str]) -> str:
    """Return upstreams in the format of the setting UPSTREAMS."""
    return ",".join(f"{service}={where}" for service, where in upstreams.items())


def _assign(options: Options, ports: Ports) -> dict[str, list[str]]:
    """Return the addresses of every process of every service. Raises StackError."""
    if unknown := set(options.replicas) - set(SERVICES):
        raise StackError(
            f"there is no service {', '.join(sorted(unknown))}", fix=f"the services are {', '.join(SERVICES)}"
        )
    if not options.mesh and any(count > 1 for count in options.replicas.values()):
        raise StackError("several processes of a service need the ingress, which --no-mesh disables")
    taken, addresses = 0, {}
    for name in SERVICES:
        count = options.replicas.get(name, 1)
        addresses[name] = [address(ports.service(taken + number)) for number in range(count)]
        taken += count
    return addresses
