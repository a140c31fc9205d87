"""The base class of every business error, and the lookup of a class by the reason on the wire."""

from collections.abc import Mapping
from importlib import import_module
from typing import ClassVar, Self, TypeAlias
from uuid import UUID

# The types of a message's placeholders; the code that raises formats all others.
Detail: TypeAlias = str | int | UUID

# The classes of the imported domains, by (domain, reason). `error_class` imports missing ones.
ERRORS: "dict[tuple[str, str], type[ShopError]]" = {}

_MODULES: dict[str, str] = {}  # filled by mesh.codegen


class ShopError(Exception):
    """An error that the contract names. Subclasses are generated, one for each value of an ErrorReason."""

    code: ClassVar[int]
    """The number of its google.rpc.Code, which is also its gRPC status code."""
    reason: ClassVar[str]
    domain: ClassVar[str]
    http_status: ClassVar[int | None] = None
    """The status at the JSON edge where it differs from the one that `code` maps to."""
    retry_seconds: float | None = None
    """How long a client should wait before it repeats the call: the contract's, or as the error was raised."""

    message: str
    metadata: dict[str, str]

    def __init__(self, message: str, metadata: Mapping[str, str]) -> None:
        super().__init__(message)
        self.message = message
        self.metadata = dict(metadata)

    def retry_after(self, seconds: float) -> Self:
        """Set how long a client should wait, and return the error."""
        self.retry_seconds = seconds
        return self

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        ERRORS[cls.domain, cls.reason] = cls

    def __reduce__(self) -> "tuple[object, tuple[str, dict[str, str]]]":
        return type(self).restored, (self.message, self.metadata)

    @classmethod
    def restored(cls, message: str, metadata: Mapping[str, str]) -> Self:
        """Return the error as another process raised it; its metadata may be of an older or newer build."""
        error = cls.__new__(cls)
        ShopError.__init__(error, message, metadata)
        return error


def error_class(domain: str, reason: str) -> type[ShopError] | None:
    """Return the class of a reason, or None for one that this build does not know. Imports its module if needed."""
    if (domain, reason) not in ERRORS and domain in _MODULES:
        import_module(_MODULES[domain])
    return ERRORS.get((domain, reason))
