"""The base of every business error, and the way from an error on the wire back to its class."""

from collections.abc import Mapping
from importlib import import_module
from typing import ClassVar, Self, TypeAlias
from uuid import UUID

# What a message may be filled with; everything else is formatted by the one who raises.
Detail: TypeAlias = str | int | UUID

# The classes of the domains that were imported, by (domain, reason). `error_class` imports what is missing.
ERRORS: "dict[tuple[str, str], type[ShopError]]" = {}

_MODULES: dict[str, str] = {}  # filled by mesh.codegen


class ShopError(Exception):
    """A refusal that the contract names. Subclasses are generated, one for each value of an ErrorReason."""

    code: ClassVar[int]
    """The number of its google.rpc.Code, which is also its gRPC status code."""
    reason: ClassVar[str]
    domain: ClassVar[str]
    http_status: ClassVar[int | None] = None
    """The status at the JSON edge where it departs from the one that `code` maps to."""

    message: str
    metadata: dict[str, str]

    def __init__(self, message: str, metadata: Mapping[str, str]) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata)

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        ERRORS[cls.domain, cls.reason] = cls

    def __reduce__(self) -> "tuple[object, tuple[str, dict[str, str]]]":
        return type(self).restored, (self.message, self.metadata)

    @classmethod
    def restored(cls, message: str, metadata: Mapping[str, str]) -> Self:
        """The error as another process raised it, whose metadata may be older or newer than this class."""
        error = cls.__new__(cls)
        ShopError.__init__(error, message, metadata)
        return error


def error_class(domain: str, reason: str) -> type[ShopError] | None:
    """The class of a reason, importing its module when needed; None for one that this build does not know."""
    if (domain, reason) not in ERRORS and domain in _MODULES:
        import_module(_MODULES[domain])
    return ERRORS.get((domain, reason))
