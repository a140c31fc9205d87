"""What an ingress stands between: all that its configuration depends on besides the contract."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Addresses are host:port; that of `admin` may be unix:/path."""

    listen: str
    admin: str
    edge: str
    reflection: str
    #: Each service's processes, between which calls go round.
    services: Mapping[str, list[str]]
    #: Where services reach services of which there are several; empty when there are none.
    inner: str = ""

    @classmethod
    def read(cls, path: Path) -> Self:
        return cls(**json.loads(path.read_text()))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self), indent=1))
