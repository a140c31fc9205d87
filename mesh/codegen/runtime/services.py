"""Every gRPC service of the contract: the workload that serves it, and its generated stub and servicer classes."""

from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One gRPC service."""

    name: str
    """The full name: `shop.order.v1.OrderService`."""
    workload: str
    """The workload that serves it: `svc_order`."""
    module: str
    """The generated module of its stub and servicer; imported when first needed."""

    @property
    def stub_class(self) -> Any:
        """The generated stub class."""
        return getattr(import_module(self.module), f"{self._class_prefix}Stub")

    @property
    def servicer_class(self) -> Any:
        """The generated base class of its servicers."""
        return getattr(import_module(self.module), f"{self._class_prefix}Servicer")

    def register(self, servicer: object, server: Any) -> None:
        """Add the servicer to a gRPC server, before it starts."""
        getattr(import_module(self.module), f"add_{self._class_prefix}Servicer_to_server")(servicer, server)

    @property
    def _class_prefix(self) -> str:
        return self.name.rpartition(".")[2]


# By the full name.
SERVICES: Final[dict[str, Service]] = {}  # filled by mesh.codegen


def service_of_stub(stub: type) -> Service:
    """Return the service that the generated stub class calls. Raises LookupError for any other class."""
    return _service_of(stub, "Stub")


def service_of_servicer(servicer: object) -> Service:
    """Return the service whose generated servicer class the servicer extends. Raises LookupError unless it is one."""
    return _service_of(type(servicer), "Servicer")


def _service_of(kind: type, suffix: str) -> Service:
    names = {(base.__module__, base.__name__) for base in kind.__mro__}
    found = [one for one in SERVICES.values() if (one.module, one.name.rpartition(".")[2] + suffix) in names]
    if len(found) != 1:
        listed = " and ".join(one.name for one in found) or "no service of the contract"
        raise LookupError(f"{kind.__qualname__} belongs to {listed}")
    return found[0]
