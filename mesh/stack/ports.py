"""The ports of a stack: a range of one hundred, with a fixed offset for each process."""

import errno
import random
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil

from mesh.errors import StackError

SPAN = 100
_HOST = "127.0.0.1"
#: Service processes that a stack holds, each with a port for calls and one for metrics.
_PROCESSES = 39
#: Below the ephemeral port range of every system.
_BASES = range(10_000, 30_000, SPAN)


@dataclass(frozen=True)
class Ports:
    """The ports `base` to `base + 99`; the first ones belong to the service processes."""

    base: int

    @property
    def entry(self) -> int:
        """The port for everything from outside."""
        return self.base + 80

    @property
    def edge(self) -> int:
        """The port of the JSON edge behind the ingress."""
        return self.base + 81

    @property
    def reflection(self) -> int:
        """The port of the edge's gRPC reflection."""
        return self.base + 82

    @property
    def inner(self) -> int:
        """The ingress's port for calls to services with several processes."""
        return self.base + 83

    @property
    def payment_provider(self) -> int:
        """The port of the payment provider's simulator."""
        return self.base + 84

    @property
    def courier(self) -> int:
        """The port of the courier's simulator."""
        return self.base + 85

    @property
    def message_sender(self) -> int:
        """The port of the message sender's simulator."""
        return self.base + 86

    @property
    def edge_metrics(self) -> int:
        """The port of the JSON edge's metrics."""
        return self.base + 87

    @property
    def kafka(self) -> int:
        """The port of the Kafka broker."""
        return self.base + 92

    @property
    def kafka_controller(self) -> int:
        """The port of the KRaft controller."""
        return self.base + 93

    @property
    def held(self) -> int:
        """The port that is bound while the stack runs, and never listened on: it marks the range as taken."""
        return self.base + SPAN - 1

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Mark the range as taken. Raises StackError when another stack has it."""
        with socket.socket() as mark:
            try:
                mark.bind((_HOST, self.held))
            except OSError as error:
                raise StackError(
                    f"the ports from {self.base} to {self.held} belong to another stack",
                    fix="choose others with --port-base, such as --port-base 9000",
                ) from error
            yield

    def service(self, number: int) -> int:
        """Return the port of a service process, by its number from 0. Raises StackError."""
        if not 0 <= number < _PROCESSES:
            raise StackError(f"a stack holds {_PROCESSES} service processes at most", fix="start fewer --replicas")
        return self.base + 1 + number

    def metrics(self, service: int) -> int:
        """Return the port of the metrics of the service process with this port."""
        return service + _PROCESSES


def address(port: int) -> str:
    """Return the loopback address with the port."""
    return f"{_HOST}:{port}"


def free_base() -> int:
    """Return the start of a random range without a port in use, so that parallel stacks rarely collide."""
    for base in random.sample(_BASES, k=len(_BASES)):
        if all(is_free(port) for port in range(base, base + SPAN)):
            return base
    raise StackError("found no hundred free ports in a row")


def is_free(port: int) -> bool:
    """Return whether the port can be listened on now."""
    with socket.socket() as probe:
        # Connections in TIME_WAIT do no harm; a listener does.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
            probe.listen(1)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
        return True


def require_free(wanted: Mapping[str, int]) -> None:
    """Raise StackError naming the first port in use and the process that has it."""
    for name, port in wanted.items():
        if not is_free(port):
            raise StackError(
                f"port {port}, which {name} needs, is in use by {_user(port)}",
                fix="stop it, or choose other ports with --port-base, such as --port-base 9000",
            )


def _user(port: int) -> str:
    with suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                if connection.pid is None:
                    break
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another process"
