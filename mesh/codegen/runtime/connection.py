"""One connection to the shop: its address, its credentials and the access token that goes with each call."""

from collections.abc import Callable
from types import TracebackType
from typing import Self

import grpc

from shop.channel import CHANNEL_OPTIONS, Channel, Metadata


class Connection:
    """A gRPC connection; `async with` closes it."""

    def __init__(
        self,
        target: str,
        *,
        token: str | Callable[[], str] = "",
        credentials: grpc.ChannelCredentials | None = None,
        metadata: Metadata = (),
    ) -> None:
        """`target` is host:port; `token` is a user's access token, or returns the current one for each call."""
        self.token = token
        self._metadata = metadata
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options=CHANNEL_OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options=CHANNEL_OPTIONS)
        #: What the client of each service is made with.
        self.channel = Channel(self._channel, self._call_metadata)

    def _call_metadata(self) -> Metadata:
        token = self.token() if callable(self.token) else self.token
        return (*self._metadata, ("authorization", f"Bearer {token}")) if token else self._metadata

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; running calls are cancelled."""
        await self._channel.close()
