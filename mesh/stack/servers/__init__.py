"""The real servers that a mesh stands on, each started from its wheel. One file a server; each works alone too:

async with Postgres(folder) as postgres:
    await asyncpg.connect(postgres.url)
"""
