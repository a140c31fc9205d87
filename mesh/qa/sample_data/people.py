"""The accounts of the sample shop."""

from dataclasses import dataclass, field

from mesh.stack.secrets import ADMIN_EMAIL, Secrets


@dataclass(frozen=True, slots=True)
class Person:
    """A person with an account."""

    email: str
    password: str = field(repr=False)
    name: str
    roles: tuple[str, ...]


def admin(secrets: Secrets) -> Person:
    """Return the admin, whose account svc_user creates at its first start."""
    return Person(ADMIN_EMAIL, secrets.admin_password, "Admin", ("customer", "admin"))


def staff(secrets: Secrets) -> Person:
    """Return the staff account, which manages stock and ships orders."""
    return Person("staff@shopmesh.local", secrets.password("staff"), "Staff", ("customer", "staff"))


def courier(secrets: Secrets) -> Person:
    """Return the courier account, which delivers parcels."""
    return Person("courier@shopmesh.local", secrets.password("courier"), "Courier", ("customer", "courier"))
