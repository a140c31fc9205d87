"""Writes a bootstrap file: `python -m mesh.proxy INPUTS BOOTSTRAP`."""

import sys
from pathlib import Path

from mesh.policy.compiler import compile_policy
from mesh.proxy.ingress import render
from mesh.proxy.inputs import IngressInputs

if __name__ == "__main__":
    # Binary, because betterproto2 spells some JSON names differently from Envoy (consecutive5Xx).
    Path(sys.argv[2]).write_bytes(bytes(render(IngressInputs.read(Path(sys.argv[1])), compile_policy())))
