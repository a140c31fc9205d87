"""Simulators of the external APIs, as processes of their own; docs/simulators.md describes them and their faults.

They know nothing of the services and share no code with them.
"""
