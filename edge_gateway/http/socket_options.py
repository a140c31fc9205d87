"""What the kernel is asked to find out about peers: those that are gone, and those that take nothing any more."""

import socket

_Option = tuple[int, int, int]


def keepalive() -> list[_Option]:
    """A peer that has been silent for half a minute has to answer."""
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *_tcp(TCP_KEEPIDLE=30, TCP_KEEPINTVL=10, TCP_KEEPCNT=3)]


def timeout(seconds: float) -> list[_Option]:
    """What was written has to be taken within so long, or the connection is given up."""
    return _tcp(TCP_USER_TIMEOUT=round(seconds * 1000))


def _tcp(**values: int) -> list[_Option]:
    """Where the system has them."""
    return [
        (socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in values.items() if hasattr(socket, name)
    ]
