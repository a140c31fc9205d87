"""The secrets of one stack: generated at its first start and kept with its data."""

import base64
import secrets

from mesh.stack.state import State

#: The account that is an admin from the first start on.
ADMIN_EMAIL = "admin@shopmesh.local"


class Secrets:
    """The secrets of one stack, by their use."""

    def __init__(self, state: State) -> None:
        self._state = state

    def database(self, service: str) -> str:
        """Return the password of a service's database role."""
        return self._state.secret(f"{service}.database", _password)

    def database_owner(self, service: str) -> str:
        """Return the password of the role that owns a service's database."""
        return self._state.secret(f"{service}.database.owner", _password)

    def account(self, server: str, name: str) -> str:
        """Return the password of an account at one of the stack's servers."""
        return self._state.secret(f"{name}.{server}", _password)

    def key(self, simulator: str) -> str:
        """Return the API key of a simulator."""
        return self._state.secret(f"{simulator}.key", _password)

    def webhook(self, simulator: str) -> str:
        """Return the secret that a simulator signs its webhooks with."""
        return self._state.secret(f"{simulator}.webhook", lambda: f"whsec_{_random_bytes()}")

    def random_key(self, name: str) -> str:
        """Return the key of this name: 32 random bytes in base64."""
        return self._state.secret(name, _random_bytes)

    @property
    def admin_password(self) -> str:
        """The password of the first admin."""
        return self.password("admin")

    def password(self, name: str) -> str:
        """Return the password of one of the stack's own accounts."""
        return self._state.secret(f"{name}.password", lambda: secrets.token_urlsafe(12))


def _password() -> str:
    return secrets.token_urlsafe(24)


def _random_bytes() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()
