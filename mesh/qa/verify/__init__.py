"""What must hold of a shop, asked of a running one: each invariant is a query that finds what breaks it.

The queries are data in .sql files: `svc_x/invariants.sql` for a service's own database; beside this module,
`everywhere.sql` for what all of them keep and `together.sql` for what holds between services, run on copies in SQLite.
"""
