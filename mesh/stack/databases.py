"""A database for every service: one role owns and migrates it, another only reads and writes rows."""

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import asyncpg

from mesh.errors import StackError

_ITERATIONS = 4096
#: The advisory lock held while roles are created: PostgreSQL rejects two sessions that alter the same role.
_LOCK = 0x5350_4D45_5348


@dataclass(frozen=True, kw_only=True)
class ServiceDatabase:
    """The database of one service; `server` is the superuser's URL."""

    service: str
    server: str = field(repr=False)
    password: str = field(repr=False)
    owner_password: str = field(repr=False)

    @property
    def name(self) -> str:
        """The name of the database."""
        return f"shop_{self.service.removeprefix('svc_')}"

    @property
    def owner(self) -> str:
        """The role that owns the database and runs migrations."""
        return f"{self.service}_owner"

    @property
    def url(self) -> str:
        """The URL for the service, whose role only reads and writes rows."""
        return _url(self.server, self.service, self.password, self.name)

    @property
    def owner_url(self) -> str:
        """The URL for migrations."""
        return _url(self.server, self.owner, self.owner_password, self.name)

    async def create(self) -> None:
        """Create the roles, the database and its grants; existing ones are corrected. Raises StackError."""
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
            raise StackError(f"cannot create the database of {self.service}: {error}") from error

    async def _create_roles(self, admin: "asyncpg.Connection[asyncpg.Record]") -> None:
        create = "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS"
        async with admin.transaction():
            await admin.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
            for role, password in ((self.owner, self.owner_password), (self.service, self.password)):
                if not await admin.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", role):
                    await admin.execute(f"CREATE ROLE {role} {create}")
                await admin.execute(f"ALTER ROLE {role} PASSWORD '{_scram(password)}'")
            # A role that is no superuser may give a database only to a role that it is a member of.
            await admin.execute(f"GRANT {self.owner} TO CURRENT_USER")

    async def _create_database(self, admin: "asyncpg.Connection[asyncpg.Record]") -> None:
        if not await admin.fetchval("SELECT true FROM pg_database WHERE datname = $1", self.name):
            await admin.execute(f"CREATE DATABASE {self.name} OWNER {self.owner}")
        await admin.execute(f"REVOKE ALL ON DATABASE {self.name} FROM PUBLIC")
        await admin.execute(f"GRANT CONNECT ON DATABASE {self.name} TO {self.service}")

    async def _grant(self, owner: "asyncpg.Connection[asyncpg.Record]") -> None:
        """Grant the service the rows of all existing tables, and of those that migrations will create."""
        rights = (("TABLES", "SELECT, INSERT, UPDATE, DELETE"), ("SEQUENCES", "SELECT, USAGE"))
        await owner.execute(f"REVOKE ALL ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO {self.service}")
        for kind, what in rights:
            await owner.execute(
                f"GRANT {what} ON ALL {kind} IN SCHEMA public TO {self.service};"
                f"ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT {what} ON {kind} TO {self.service}"
            )


def _url(server: str, user: str, password: str, database: str) -> str:
    """Return the URL of `server` with another user and database."""
    parts = urlsplit(server)
    host = parts.netloc.rpartition("@")[2]
    ours = {"user", "password", "dbname", "database"}
    query = urlencode([(name, value) for name, value in parse_qsl(parts.query) if name not in ours], safe="/")
    return urlunsplit((parts.scheme, f"{user}:{quote(password, safe='')}@{host}", f"/{database}", query, ""))


def _scram(password: str) -> str:
    """Return the SCRAM verifier of a password (RFC 5803), so that the password itself is in no SQL statement or log."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    keys = (hashlib.sha256(client_key).digest(), hmac.digest(salted, b"Server Key", "sha256"))
    stored, server = (base64.b64encode(key).decode() for key in keys)
    return f"SCRAM-SHA-256${_ITERATIONS}:{base64.b64encode(salt).decode()}${stored}:{server}"
