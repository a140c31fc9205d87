"""The world outside of the mesh, as processes of its own; docs/simulators.md tells how to use and break them.

They know nothing of the services, and share no code with them.
"""
