"""gRPC server reflection: fetches descriptors from a back end, and serves the edge's own to clients such as grpcurl."""

import ssl
from typing import Any

import grpc
from google.protobuf.descriptor_pb2 import FileDescriptorProto as PoolFile
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1.health import aio as health_aio
from grpc_health.v1.health_pb2 import HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import add_HealthServicer_to_server
from grpc_reflection.v1alpha.reflection import aio as reflection_aio
from grpc_reflection.v1alpha.reflection_pb2 import ServerReflectionRequest, ServerReflectionResponse
from protobuf import DescFile, Registry
from protobuf.wkt import FileDescriptorProto

from edge_gateway.grpc_client.upstreams import GrpcCall, UpstreamError, Upstreams
from edge_gateway.routing.descriptors import DescriptorError, build_registry, services

#: v1 and v1alpha differ only in their names.
_VERSIONS = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
_TIMEOUT = 10.0
_MAX_MESSAGE = 64 * 1024 * 1024
_UNIMPLEMENTED = 12


async def fetch_registry(target: str, tls: ssl.SSLContext | None = None) -> Registry:
    """Fetch the descriptors of all services of a back end, or raise DescriptorError."""
    upstreams = Upstreams({"*": target}, max_message=_MAX_MESSAGE, tls=tls)
    try:
        for version in _VERSIONS:
            try:
                call = await upstreams.stream(f"/{version}/ServerReflectionInfo", (), _TIMEOUT)
                return await _Fetch(call).run()
            except UpstreamError as error:
                if error.code != _UNIMPLEMENTED:
                    raise DescriptorError(f"reflection failed with code {error.code}: {error.message}") from error
    finally:
        await upstreams.close()
    raise DescriptorError("the back end has no server reflection")


class _Fetch:
    def __init__(self, call: GrpcCall) -> None:
        self._call = call
        self._files: dict[str, FileDescriptorProto] = {}

    async def run(self) -> Registry:
        listed = await self._ask(ServerReflectionRequest(list_services=""))
        for service in listed.list_services_response.service:
            if service.name not in _VERSIONS:
                await self._add(ServerReflectionRequest(file_containing_symbol=service.name))
        while missing := self._missing():
            await self._add(ServerReflectionRequest(file_by_filename=missing))
        await self._call.done_writing()
        return build_registry(self._files.values())

    def _missing(self) -> str | None:
        return next(
            (name for file in self._files.values() for name in file.dependency if name not in self._files), None
        )

    async def _add(self, request: ServerReflectionRequest) -> None:
        reply = await self._ask(request)
        if reply.HasField("error_response"):
            wanted = request.file_containing_symbol or request.file_by_filename
            raise DescriptorError(f"reflection does not know {wanted}: {reply.error_response.error_message}")
        for serialized in reply.file_descriptor_response.file_descriptor_proto:
            file = FileDescriptorProto.from_binary(serialized)
            self._files.setdefault(file.name, file)

    async def _ask(self, request: ServerReflectionRequest) -> ServerReflectionResponse:
        await self._call.write(request.SerializeToString())
        reply = await self._call.read()
        if reply is None:
            raise DescriptorError("the back end ended the reflection stream")
        return ServerReflectionResponse.FromString(reply)


class _MethodPool:
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


async def serve_reflection(registry: Registry, listen: str) -> tuple[grpc.aio.Server, int]:
    """Serve reflection and health for the services of a registry; return the server and its port."""
    names = [service.type_name for service in services(registry)]
    server = grpc.aio.server()
    servicer = reflection_aio.ReflectionServicer([*names, *_VERSIONS], pool=_MethodPool(_pool(registry)))
    for version in _VERSIONS:
        handler = grpc.stream_stream_rpc_method_handler(
            servicer.ServerReflectionInfo,
            request_deserializer=ServerReflectionRequest.FromString,
            response_serializer=ServerReflectionResponse.SerializeToString,
        )
        server.add_generic_rpc_handlers(
            (grpc.method_handlers_generic_handler(version, {"ServerReflectionInfo": handler}),)
        )
    health = health_aio.HealthServicer()
    await health.set("", HealthCheckResponse.SERVING)
    add_HealthServicer_to_server(health, server)
    port = server.add_insecure_port(listen)
    await server.start()
    return server, port


def _pool(registry: Registry) -> DescriptorPool:
    pool = DescriptorPool()
    added: set[str] = set()

    def add(file: DescFile) -> None:
        if file.name in added:
            return
        added.add(file.name)
        for dependency in file.dependencies:
            add(dependency)
        pool.Add(PoolFile.FromString(file.proto.to_binary()))

    for desc in registry:
        if isinstance(desc, DescFile):
            add(desc)
    return pool
