"""The protos of the shop keep the house's rules, and gen/ is what they say."""

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import protovalidate
import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
)

from buf.validate import validate_pb2
from mesh.codegen import generate, third_party
from mesh.codegen.tools import BIN

ROOT = Path(__file__).parents[2]
IMAGE = ROOT / "gen" / "shop" / "shop.binpb"

FILES = [file for file in FileDescriptorSet.FromString(IMAGE.read_bytes()).file if file.package.startswith("shop.")]


@pytest.mark.parametrize("arguments", [("lint",), ("format", "--diff", "--exit-code"), ("build",)], ids=lambda a: a[0])
def test_plain_buf_has_nothing_to_say(arguments: tuple[str, ...]) -> None:
    third_party.materialise(ROOT)

    done = subprocess.run([BIN / "buf", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_generating_leaves_no_diff() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mesh.codegen", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_generating_leaves_no_diff_whatever_the_process_has_imported(tmp_path: Path) -> None:
    """Known extensions are written in another order than unknown ones; the image must not depend on it."""
    assert validate_pb2.DESCRIPTOR.extensions_by_name

    generate.into(tmp_path, ROOT)

    assert generate.differences(tmp_path, ROOT) == []


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_component_is_commented(file: FileDescriptorProto) -> None:
    commented = {tuple(place.path) for place in file.source_code_info.location if place.leading_comments.strip()}

    assert [name for name, path in _components(file) if path not in commented] == []


def _components(file: FileDescriptorProto) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and paths, by the field numbers of descriptor.proto."""
    for i, service in enumerate(file.service):
        yield service.name, (6, i)
        yield from ((f"{service.name}.{method.name}", (6, i, 2, j)) for j, method in enumerate(service.method))
    for i, message in enumerate(file.message_type):
        yield from _of_message(message, (4, i))
    for i, enum in enumerate(file.enum_type):
        yield from _of_enum(enum, (5, i))


def _of_message(message: DescriptorProto, path: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield message.name, path
    yield from ((f"{message.name}.{field.name}", (*path, 2, i)) for i, field in enumerate(message.field))
    for i, nested in enumerate(message.nested_type):
        if not nested.options.map_entry:
            yield from _of_message(nested, (*path, 3, i))
    for i, enum in enumerate(message.enum_type):
        yield from _of_enum(enum, (*path, 4, i))


def _of_enum(enum: EnumDescriptorProto, path: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield enum.name, path
    yield from ((value.name, (*path, 2, i)) for i, value in enumerate(enum.value))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_every_rule_of_a_message_can_be_run(file: FileDescriptorProto) -> None:
    """A rule that does not compile would refuse every request, and only once the first one arrives."""
    module = importlib.import_module(file.name.removesuffix(".proto").replace("/", ".") + "_pb2")

    for message in file.message_type:
        protovalidate.collect_violations(getattr(module, message.name)())


def test_the_error_base_needs_nothing_but_the_standard_library() -> None:
    """So that domain.py, which may import nothing else, can raise what the contract names."""
    program = (
        "import sys; import shop.errors\n"
        "foreign = {name.partition('.')[0] for name in sys.modules} - sys.stdlib_module_names\n"
        "print(sorted(name for name in foreign if not name.startswith('_')))"
    )

    done = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(ROOT / 'gen')!r}); {program}",
        ],
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout.strip() == "['shop']"


def _documented() -> list[list[str]]:
    """Domain and reason of every row of docs/errors.md."""
    page = (ROOT / "docs" / "errors.md").read_text("utf-8")
    _, *sections = re.split(r"^## (\S+)$", page, flags=re.MULTILINE)
    return [
        [domain, reason]
        for domain, rows in zip(sections[::2], sections[1::2], strict=True)
        for reason in re.findall(r"^\| `([A-Z0-9_]+)` ", rows, re.MULTILINE)
    ]


def test_every_documented_reason_is_found_as_a_class_without_importing_its_module() -> None:
    program = (
        "import sys, json; from shop.errors import error_class\n"
        "found = [error_class(domain, reason) for domain, reason in json.load(sys.stdin)]\n"
        "print(json.dumps([kind and [kind.domain, kind.reason] for kind in found]))\n"
        "print(error_class('inventory.shop', 'NO_SUCH_REASON'), error_class('no-such.shop', 'SKU_NOT_FOUND'))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(ROOT / "gen")},
        input=json.dumps(_documented()),
        capture_output=True,
        text=True,
        check=True,
    )

    known, unknown = done.stdout.splitlines()
    assert len(_documented()) >= 20
    assert json.loads(known) == _documented()
    assert unknown == "None None"
