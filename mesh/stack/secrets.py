"""The secrets of one stack: made at its first start, the same ever after, so that its data can be opened again."""

import base64
import secrets

from mesh.stack.state import State

#: The account that svc_user makes at its first start: an admin, who gives others their roles.
ADMIN_EMAIL = "admin@shopmesh.local"


class Secrets:
    def __init__(self, state: State) -> None:
        self._state = state

    def database(self, service: str) -> str:
        """The password of the role that a service works as."""
        return self._state.secret(f"{service}.database", _password)

    def database_owner(self, service: str) -> str:
        """The password of the role that owns its database."""
        return self._state.secret(f"{service}.database.owner", _password)

    def key(self, simulator: str) -> str:
        """What a service shows to a simulator of the outside world."""
        return self._state.secret(f"{simulator}.key", _password)

    def webhook(self, simulator: str) -> str:
        """What a simulator signs its webhooks with."""
        return self._state.secret(f"{simulator}.webhook", lambda: f"whsec_{_random_bytes()}")

    def random_key(self, name: str) -> str:
        """Return the key of this name: 32 random bytes in base64."""
        return self._state.secret(name, _random_bytes)

    @property
    def admin_password(self) -> str:
        """The password of the first admin."""
        return self.password("admin")

    def password(self, name: str) -> str:
        """The password of an account that the stack makes for people to sign in with."""
        return self._state.secret(f"{name}.password", lambda: secrets.token_urlsafe(12))


def _password() -> str:
    return secrets.token_urlsafe(24)


def _random_bytes() -> str:
    return base64.b64encode(secrets.token_bytes(32)).decode()
