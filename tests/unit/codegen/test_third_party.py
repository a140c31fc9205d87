"""Third-party protos: complete, and those of the installed packages."""

from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from grpc_tools import protoc

from buf.validate import validate_pb2
from mesh.codegen import third_party

ROOT = Path(__file__).parents[3]


def test_the_printed_source_compiles_back_to_the_descriptor_of_the_wheel(includes: list[str], tmp_path: Path) -> None:
    image = tmp_path / "image.binpb"

    assert protoc.main(["protoc", *includes, f"--descriptor_set_out={image}", "buf/validate/validate.proto"]) == 0

    (compiled,) = FileDescriptorSet.FromString(image.read_bytes()).file
    original = FileDescriptorProto.FromString(validate_pb2.DESCRIPTOR.serialized_pb)
    assert _without_derived_names(compiled) == _without_derived_names(original)


def _without_derived_names(file: FileDescriptorProto) -> FileDescriptorProto:
    """json_name follows from name; whether it is written out is up to the compiler."""
    for field in (*file.extension, *(field for message in file.message_type for field in message.field)):
        field.ClearField("json_name")
    return file


def test_a_second_run_changes_no_file(tmp_path: Path) -> None:
    third_party.materialise(tmp_path)
    proto = tmp_path / ".cache/protos/google/api/http.proto"
    before = proto.stat().st_mtime_ns

    third_party.materialise(tmp_path)

    assert proto.stat().st_mtime_ns == before


def test_another_version_of_a_package_recreates_the_folder(tmp_path: Path) -> None:
    third_party.materialise(tmp_path)
    (tmp_path / ".cache/protos.stamp").write_text("1\ngoogleapis-common-protos 0.1", "utf-8")
    (tmp_path / ".cache/protos/google/api/gone.proto").touch()

    third_party.materialise(tmp_path)

    assert not (tmp_path / ".cache/protos/google/api/gone.proto").exists()
    assert (tmp_path / ".cache/protos/google/type/money.proto").exists()
