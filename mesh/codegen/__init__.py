"""Turns protos/ into gen/ and the reference docs. Entered by `python -m mesh.codegen`."""
