"""Verifies the invariants of a running shop: each is a query that returns the rows that violate it.

The queries are data in .sql files: `svc_x/invariants.sql` for a service's own database; beside this module,
`everywhere.sql` for what all of them keep and `together.sql` for what holds between services, run on copies in SQLite.
"""
