"""What must hold of a shop, asked of a running one: each invariant is a query that finds what breaks it.

The queries are data, in the .sql files beside this one: one for each service's database, `everywhere.sql` for what
all of them keep, and `together.sql` for what holds between services, asked of copies in SQLite.
"""
