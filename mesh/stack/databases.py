"""A database for every service: one role owns it and migrates it, another may only read and write its rows."""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import asyncpg

from mesh.errors import StackError

_ITERATIONS = 4096
#: Taken while roles are made: PostgreSQL refuses two sessions that alter the same one.
_LOCK = 0x5350_4D45_5348


@dataclass(frozen=True, kw_only=True)
class ServiceDatabase:
    """The database of one service, on the server that `server` names as its superuser connects."""

    service: str
    server: str = field(repr=False)
    password: str = field(repr=False)
    owner_password: str = field(repr=False)

    @property
    def name(self) -> str:
        return f"shop_{self.service.removeprefix('svc_')}"

    @property
    def owner(self) -> str:
        return f"{self.service}_owner"

    @property
    def url(self) -> str:
        """For the service: rows, and nothing else."""
        return _url(self.server, self.service, self.password, self.name)

    @property
    def owner_url(self) -> str:
        """For its migrations."""
        return _url(self.server, self.owner, self.owner_password, self.name)

    async def create(self) -> None:
        """Make roles, database and rights, or make them right where they exist."""
        try:
            admin = await asyncpg.connect(self.server)
            try:
                await self._create_roles(admin)
                await self._create_database(admin)
            finally:
                await admin.close()
            owner = await asyncpg.connect(self.owner_url)
            try:
                await self._grant(owner)
            finally:
                await owner.close()
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            raise StackError(f"cannot make the database of {self.service}: {error}") from error

    async def _create_roles(self, admin: "asyncpg.Connection[asyncpg.Record]") -> None:
        create = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS"
        async with admin.transaction():
            await admin.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            for role, password in ((self.owner, self.owner_password), (self.service, self.password)):
                if not await admin.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role):
                    await admin.execute(f"CREATE ROLE {role} {create}")
                await admin.execute(f"ALTER ROLE {role} PASSWORD '{_scram(password)}'")
            # A superuser needs it not; any other may hand a database only to a role that it is a member of.
            await admin.execute(f"GRANT {self.owner} TO CURRENT_USER")

    async def _create_database(self, admin: "asyncpg.Connection[asyncpg.Record]") -> None:
        if not await admin.fetchval("SELECT true FROM pg_database WHERE datname = $1", self.name):
            await admin.execute(f"CREATE DATABASE {self.name} OWNER {self.owner}")
        await admin.execute(f"REVOKE ALL ON DATABASE {self.name} FROM PUBLIC")
        await admin.execute(f"GRANT CONNECT ON DATABASE {self.name} TO {self.service}")

    async def _grant(self, owner: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Let the service at the rows of all tables there are, and of all that migrations will make."""
        rights = (("TABLES", "SELECT, INSERT, UPDATE, DELETE"), ("SEQUENCES", "SELECT, USAGE"))
        await owner.execute(f"REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO {self.service}")
        for kind, what in rights:
            await owner.execute(
                f"GRANT {what} ON ALL {kind} IN SCHEMA public TO {self.service};"
                f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT {what} ON {kind} TO {self.service}"
            )


def _url(server: str, user: str, password: str, database: str) -> str:
    """`server` as seen by another user in another database."""
    parts = urlsplit(server)
    host = parts.netloc.rpartition("@")[2]
    ours = {"user", "password", "dbname", "database"}
    query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if name not in ours], safe="/")
    return urlunsplit((parts.scheme, f"{user}:{quote(password, safe='')}@{host}", f"/{database}", query, ""))


def _scram(password: str) -> str:
    """What PostgreSQL stores for a password (RFC 5803), so that the password itself never travels in SQL or a log."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    keys = (hashlib.sha256(client_key).digest(), hmac.digest(salted, b"Server Key", "sha256"))
    stored, server = (base64.b64encode(key).decode() for key in keys)
    return f"SCRAM-SHA-256${_ITERATIONS}:{base64.b64encode(salt).decode()}${stored}:{server}"
