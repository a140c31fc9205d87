"""Chaos: faults of a running stack under load, in a seeded order, and what `verify` finds afterwards."""
