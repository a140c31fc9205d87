"""Wraps the gRPC compiler of grpcio-tools as a protoc plugin, the only form that buf runs."""

import sys
import tempfile
from pathlib import Path

from google.protobuf.compiler import plugin_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc


def respond(request: plugin_pb2.CodeGeneratorRequest) -> plugin_pb2.CodeGeneratorResponse:
    """Generate `*_pb2_grpc.py` for the files that have a service."""
    services = [file.name for file in request.proto_file if file.service and file.name in request.file_to_generate]
    response = plugin_pb2.CodeGeneratorResponse(
        supported_features=plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
    )
    if not services:
        return response
    with tempfile.TemporaryDirectory() as folder:
        image, out = Path(folder, "image.binpb"), Path(folder, "out")
        image.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
        out.mkdir()
        if protoc.main(["protoc", f"--descriptor_set_in={image}", f"--grpc_python_out={out}", *services]):
            response.error = "protoc could not generate the gRPC code"
        for path in sorted(out.rglob("*.py")):
            response.file.add(name=path.relative_to(out).as_posix(), content=path.read_text("utf-8"))
    return response


def main() -> None:
    """Run the plugin protocol on stdin and stdout."""
    request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    sys.stdout.buffer.write(respond(request).SerializeToString())


if __name__ == "__main__":
    main()
