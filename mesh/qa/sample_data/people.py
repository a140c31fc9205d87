"""Who works at the sample shop."""

from dataclasses import dataclass, field

from mesh.stack.secrets import ADMIN_EMAIL, Secrets


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody with an account."""

    email: str
    password: str = field(repr=False)
    name: str
    roles: tuple[str, ...]


def admin(secrets: Secrets) -> Person:
    """Whom svc_user makes at its first start."""
    return Person(ADMIN_EMAIL, secrets.admin_password, "Admin", ("customer", "admin"))


def staff(secrets: Secrets) -> Person:
    """Who keeps the shelves and ships what was ordered."""
    return Person("staff@shopmesh.local", secrets.password("staff"), "Staff", ("customer", "staff"))


def courier(secrets: Secrets) -> Person:
    """Who carries parcels."""
    return Person("courier@shopmesh.local", secrets.password("courier"), "Courier", ("customer", "courier"))
