"""The inputs of an ingress configuration besides the contract: the addresses on both sides of it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, kw_only=True)
class IngressInputs:
    """Addresses are host:port; `admin` may also be unix:/path."""

    listen: str
    admin: str
    edge: str
    reflection: str
    #: The addresses of each service's processes; calls are balanced between them.
    services: Mapping[str, list[str]]
    #: The listener for calls to services with several processes; empty when there are none.
    inner: str = ""

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return the inputs in the JSON file."""
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        """Write the inputs as a JSON file."""
        path.write_text(json.dumps(asdict(self), indent=1))
