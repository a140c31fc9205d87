"""The servers of a stack, each started from its wheel, also on its own.

async with Postgres(folder) as postgres:
    await asyncpg.connect(postgres.url)
"""
