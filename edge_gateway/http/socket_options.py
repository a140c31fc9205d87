"""Socket options by which the kernel detects peers that are gone or no longer read."""

import socket

_Option = tuple[int, int, int]


def keepalive() -> list[_Option]:
    """Return the options that probe a peer after 30 silent seconds."""
    return [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), *_tcp(TCP_KEEPIDLE=30, TCP_KEEPINTVL=10, TCP_KEEPCNT=3)]


def user_timeout(seconds: float) -> list[_Option]:
    """Return the options that drop a connection whose peer acknowledges nothing for `seconds`."""
    return _tcp(TCP_USER_TIMEOUT=round(seconds * 1000))


def _tcp(**values: int) -> list[_Option]:
    """Return the options that this system has."""
    return [
        (socket.IPPROTO_TCP, getattr(socket, name), value) for name, value in values.items() if hasattr(socket, name)
    ]
