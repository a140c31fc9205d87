"""A whole generation, with real buf and real plugins, in a checkout of its own."""

import subprocess
from pathlib import Path

import pytest

from mesh.codegen import generate, third_party
from mesh.codegen.tools import ToolError, run

ROOT = Path(__file__).parents[3]


@pytest.fixture
def checkout(toy: Path, tmp_path: Path) -> Path:
    """A checkout with the toy domain, not yet generated."""
    options = tmp_path / "protos" / "shop" / "options" / "v1" / "options.proto"
    options.parent.mkdir(parents=True)
    for path, target in {
        ROOT / "protos" / "shop" / "options" / "v1" / "options.proto": options,
        ROOT / "buf.yaml": tmp_path / "buf.yaml",
        ROOT / "buf.gen.yaml": tmp_path / "buf.gen.yaml",
    }.items():
        target.write_bytes(path.read_bytes())
    third_party.materialise(tmp_path)
    return tmp_path


@pytest.fixture
def generate_into(checkout: Path, tmp_path_factory: pytest.TempPathFactory):
    """Generate the checkout and tells what changed."""

    def once() -> list[str]:
        scratch = tmp_path_factory.mktemp("scratch")
        generate.into(scratch, checkout)
        changes = generate.differences(scratch, checkout)
        generate.install(scratch, checkout, changes)
        return [path.as_posix() for path in changes]

    return once


def test_a_second_generation_changes_nothing(generate_into) -> None:
    first = generate_into()

    assert "gen/shop/toy/v1/toy_service_pb2_grpc.pyi" in first
    assert not [path for path in first if path.startswith(("gen/google", "gen/buf"))]
    assert generate_into() == []


def test_edited_missing_and_stale_files_are_reported(generate_into, checkout: Path) -> None:
    generate_into()
    (checkout / "gen/shop/contract.py").write_text("RPCS = {}\n", "utf-8")
    (checkout / "docs/events.md").unlink()
    (checkout / "gen/shop/leftover.py").touch()

    assert generate_into() == ["docs/events.md", "gen/shop/contract.py", "gen/shop/leftover.py"]
    assert not (checkout / "gen/shop/leftover.py").exists()
    assert generate_into() == []


def test_the_modules_of_a_removed_proto_are_deleted(generate_into, checkout: Path, toy: Path) -> None:
    generate_into()
    (toy / "toy_events.proto").unlink()

    changes = generate_into()

    assert {"gen/shop/toy/v1/toy_events_pb2.py", "gen/shop/topics.py", "docs/events.md"} <= set(changes)
    assert not list((checkout / "gen").rglob("toy_events*"))


def test_a_mistake_changes_no_file_and_is_reported(generate_into, checkout: Path, toy: Path) -> None:
    service = toy / "toy_service.proto"
    service.write_text(service.read_text("utf-8").replace("svc_toy", "svc_tyo"), "utf-8")

    with pytest.raises(ToolError, match=r"protos/shop/toy/v1/toy_service\.proto:14: .*GetToy.*'svc_tyo'"):
        generate_into()
    assert not (checkout / "gen").exists()


def test_the_image_keeps_our_comments_and_no_third_party_ones(generate_into, checkout: Path) -> None:
    generate_into()

    image = (checkout / generate.IMAGE).read_bytes()

    assert b"Takes what a toy maker sends." in image
    assert b"google/api/http.proto" in image
    assert b"Defines the HTTP configuration for an API service" not in image


@pytest.fixture
def promised(generate_into, checkout: Path) -> Path:
    """The checkout, generated and committed."""
    generate_into()
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"]
    for command in (["init", "-q"], ["add", "gen"], ["commit", "-q", "-m", "promise"]):
        subprocess.run([*git, *command], cwd=checkout, check=True, capture_output=True)
    return checkout


def test_a_changed_field_type_is_a_breaking_change(promised: Path, toy: Path) -> None:
    assert generate.breaking(promised, "HEAD") == 0
    service = toy / "toy_service.proto"
    service.write_text(service.read_text("utf-8").replace("int32 high = 5", "string high = 5"), "utf-8")

    with pytest.raises(ToolError, match=r'toy_service\.proto.*Field "5".*changed type'):
        generate.breaking(promised, "HEAD")


def test_a_revision_without_an_image_has_no_breaking_changes(promised: Path) -> None:
    assert generate.breaking(promised, "no-such-branch") == 0


def test_a_missing_tool_is_named(checkout: Path) -> None:
    with pytest.raises(ToolError, match="no-such-tool is not installed"):
        run(checkout, "no-such-tool")
