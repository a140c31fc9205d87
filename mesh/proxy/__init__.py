"""What Envoy is told, derived from the contract.

`python -m mesh.proxy PARTS BOOTSTRAP` turns a JSON file of Parts into a bootstrap file (.pb). It is a program of
its own because the messages of envoy-data-plane take a second and 70 MB to load, which nobody needs afterwards.
"""
