"""The simulators of the outside world, asked over their own HTTP, as the partners' operators would."""

from dataclasses import dataclass, field
from typing import Any

import httpx

from mesh.errors import StackError
from mesh.stack.secrets import Secrets
from mesh.stack.state import Record


@dataclass(frozen=True, slots=True)
class Partner:
    """Where one is, and what opens it."""

    name: str
    url: str
    key: str = field(repr=False)

    @classmethod
    def of(cls, record: Record, secrets: Secrets, name: str) -> "Partner":
        """The one that a stack runs under this name."""
        address = next(process.address for process in record.processes if process.name == name)
        return cls(name, f"http://{address}", secrets.key(name))

    async def get(self, path: str, **query: str | int) -> dict[str, Any]:
        return await self._ask("GET", path, params=query)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._ask("POST", path, json=body)

    async def ledger(self) -> list[dict[str, Any]]:
        """Everything that ever happened there."""
        entries: list[dict[str, Any]] = []
        more = True
        while more:
            page = await self.get("/v1/ledger", after=entries[-1]["sequence"] if entries else 0)
            entries += page["data"]
            more = page["has_more"]
        return entries

    async def _ask(self, method: str, path: str, **what: Any) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self.key}"}
        try:
            async with httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False) as client:
                content: dict[str, Any] = (await client.request(method, path, **what)).raise_for_status().json()
                return content
        except httpx.HTTPError as error:
            raise StackError(
                f"the {self.name} at {self.url} does not answer: {error}", fix="see `shopmesh status`"
            ) from error
