"""istio/ is what the protos and the deployment say: `make gen` renders it."""

from pathlib import Path

from mesh.istio import render
from mesh.istio.comparison import disagreements
from mesh.istio.reading import Cluster
from mesh.policy.compiler import compile_policy

FOLDER = Path(__file__).parents[2] / "istio"


def test_the_files_are_what_is_rendered():
    assert render.differences(render.files(compile_policy()), FOLDER) == []


def test_every_call_and_limit_in_them_agrees_with_the_policy():
    assert disagreements(compile_policy(), Cluster(render.read(FOLDER))) == []
