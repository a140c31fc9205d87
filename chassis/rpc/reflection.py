"""gRPC server reflection, for clients such as grpcurl and ghz."""

from collections.abc import Sequence
from typing import Any

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection
from grpc_reflection.v1alpha._async import ReflectionServicer
from grpc_reflection.v1alpha.reflection_pb2_grpc import add_ServerReflectionServicer_to_server


def add_reflection(server: grpc.aio.Server, services: Sequence[str]) -> None:
    """Serve the descriptors of the services with these full names."""
    names = (*services, reflection.SERVICE_NAME)
    servicer = ReflectionServicer(names, pool=MethodPool(descriptor_pool.Default()))
    add_ServerReflectionServicer_to_server(servicer, server)  # type: ignore[no-untyped-call]


class MethodPool:
    """A descriptor pool that finds methods as well, which protobuf's own knows only by their service."""

    def __init__(self, pool: DescriptorPool) -> None:
        """Look up in `pool`."""
        self._pool = pool

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pool, name)

    def FindFileContainingSymbol(self, symbol: str) -> Any:  # noqa: N802  protobuf's name
        """Return the file that defines the symbol; raises KeyError."""
        try:
            return self._pool.FindFileContainingSymbol(symbol)
        except KeyError:
            service, _, method = symbol.rpartition(".")
            if method in self._pool.FindServiceByName(service).methods_by_name:
                return self._pool.FindFileContainingSymbol(service)
            raise
