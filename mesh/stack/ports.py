"""The ports of a stack: a hundred in a row, of which each part has its own."""

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
#: Below the range from which systems take the local ends of connections.
_FREE = range(10_000, 30_000, SPAN)


@dataclass(frozen=True)
class Ports:
    """The ports `base` to `base + 99`. Services take theirs from the start, in their order."""

    base: int

    @property
    def entry(self) -> int:
        """Where everything outside enters."""
        return self.base + 80

    @property
    def edge(self) -> int:
        return self.base + 81

    @property
    def reflection(self) -> int:
        return self.base + 82

    @property
    def inner(self) -> int:
        """Where services reach services of which there are several."""
        return self.base + 83

    @property
    def payment_provider(self) -> int:
        return self.base + 84

    @property
    def courier(self) -> int:
        return self.base + 85

    @property
    def kafka(self) -> int:
        return self.base + 92

    @property
    def kafka_controller(self) -> int:
        return self.base + 93

    @property
    def held(self) -> int:
        """Bound for as long as the stack runs, and never listened on: it marks the range as taken."""
        return self.base + SPAN - 1

    @contextmanager
    def hold(self) -> Iterator[None]:
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
        """The port of the service process with this number, counted from 0."""
        if not 0 <= number < 79:
            raise StackError("a stack holds 79 service processes at most", fix="ask for fewer --replicas")
        return self.base + 1 + number


def address(port: int) -> str:
    return f"{_HOST}:{port}"


def free_base() -> int:
    """The start of a range in which no port is in use; at random, so that parallel stacks rarely meet."""
    for base in random.sample(_FREE, k=len(_FREE)):
        if all(is_free(port) for port in range(base, base + SPAN)):
            return base
    raise StackError("found no hundred free ports in a row")


def is_free(port: int) -> bool:
    """Whether we could listen there now."""
    with socket.socket() as probe:
        # Connections of an earlier stack that linger do no harm; a listener does.
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
    """StackError that names the first port in use, and by whom."""
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
