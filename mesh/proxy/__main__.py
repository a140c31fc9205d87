"""Writes a bootstrap file: `python -m mesh.proxy PARTS BOOTSTRAP`."""

import sys
from pathlib import Path

from mesh.proxy.ingress import render
from mesh.proxy.inputs import Parts

if __name__ == "__main__":
    # In binary: betterproto2 spells some names in JSON otherwise than Envoy (consecutive5Xx).
    Path(sys.argv[2]).write_bytes(bytes(render(Parts.read(Path(sys.argv[1])))))
