"""The rules in a proto are honoured on the messages that services use, in a process like theirs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from grpc_tools import protoc

ROOT = Path(__file__).parents[3]

VALID = {
    "toy_id": "123e4567-e89b-12d3-a456-426614174000",
    "name": "ball",
    "tags": ["a", "b"],
    "low": 3,
    "high": 9,
}

# What is changed of a valid toy, and the rule that refuses it.
REFUSED = {
    "a required field left empty": ({"name": ""}, "name", "required"),
    "a text that is too short": ({"name": "b"}, "name", "string.min_len"),
    "a text that is too long": ({"name": "ballon"}, "name", "string.max_len"),
    "a text of another pattern": ({"name": "BALL"}, "name", "string.pattern"),
    "an id that is no UUID": ({"toy_id": "7"}, "toy_id", "string.uuid"),
    "an empty id": ({"toy_id": ""}, "toy_id", "string.uuid_empty"),
    "an empty list": ({"tags": []}, "tags", "repeated.min_items"),
    "an item twice": ({"tags": ["a", "a"]}, "tags", "repeated.unique"),
    "an item that is too long": ({"tags": ["long"]}, "tags", "string.max_len"),
    "a negative number": ({"low": -1}, "low", "int32.gte"),
    "a rule over two fields": ({"low": 10}, "", "toy.range"),
}

PROGRAM = """
import json, sys
import protovalidate
from shop.toy.v1 import toy_service_pb2 as pb

def broken(toy):
    try:
        protovalidate.validate(pb.CreateToyRequest(toy=pb.Toy(**toy)))
    except protovalidate.ValidationError as error:
        found = [violation.proto for violation in error.violations]
        return [[[step.field_name for step in v.field.elements], v.rule_id] for v in found]
    return []

json.dump([broken(toy) for toy in json.load(sys.stdin)], sys.stdout)
"""


@pytest.fixture(scope="module")
def verdicts(includes: list[str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list]:
    """What one process of generated modules says of every toy."""
    out = tmp_path_factory.mktemp("gen")
    protos = [
        "shop/options/v1/options.proto",
        *(f"shop/toy/v1/toy_{part}.proto" for part in ("service", "events")),
    ]
    toy = Path(__file__).parent / "toy"
    assert protoc.main(["protoc", f"-I{toy}", *includes, f"--python_out={out}", *protos]) == 0
    for package in ("shop", "shop/toy", "shop/toy/v1", "shop/options", "shop/options/v1"):
        (out / package / "__init__.py").touch()  # or the shop package of the checkout would be found first
    (out / "buf").symlink_to(ROOT / "gen" / "buf")
    toys = {"a valid toy": VALID, **{name: VALID | change for name, (change, *_) in REFUSED.items()}}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM],
        cwd=out,
        env={"PYTHONPATH": str(out)},
        input=json.dumps(list(toys.values())),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(toys, json.loads(done.stdout), strict=True))


def test_a_valid_message_passes(verdicts: dict[str, list]) -> None:
    assert verdicts["a valid toy"] == []


@pytest.mark.parametrize("name", REFUSED)
def test_a_message_is_rejected_for(verdicts: dict[str, list], name: str) -> None:
    _, field, rule = REFUSED[name]

    assert verdicts[name] == [[["toy", field] if field else ["toy"], rule]]
