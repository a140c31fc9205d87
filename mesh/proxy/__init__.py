"""Envoy's configuration, derived from the policy.

`python -m mesh.proxy INPUTS BOOTSTRAP` renders a JSON file of IngressInputs into a bootstrap file (.pb). It is a
program of its own because the messages of envoy-data-plane take a second and 70 MB to load.
"""
