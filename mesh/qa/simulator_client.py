"""A client of the simulators' HTTP APIs."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from mesh.errors import StackError
from mesh.stack.secrets import Secrets
from mesh.stack.state import Record


@dataclass(frozen=True, slots=True)
class SimulatorClient:
    """A client of one simulator. Its methods raise StackError when the simulator does not answer."""

    name: str
    url: str
    key: str = field(repr=False)

    @classmethod
    def of(cls, record: Record, secrets: Secrets, name: str) -> "SimulatorClient":
        """Return the client of the simulator that a stack runs under this name."""
        address = next(process.address for process in record.processes if process.name == name)
        return cls(name, f"http://{address}", secrets.key(name))

    async def get(self, path: str, **query: str | int) -> dict[str, Any]:
        """Send a GET request and return the reply."""
        return await self._request("GET", path, params=query)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a POST request and return the reply."""
        return await self._request("POST", path, json=body)

    async def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a PUT request and return the reply."""
        return await self._request("PUT", path, json=body)

    async def ledger_pages(self) -> AsyncIterator[list[dict[str, Any]]]:
        """Yield the pages of the ledger, the first entries first."""
        more, after = True, 0
        while more:
            page = await self.get("/v1/ledger", after=after)
            yield page["data"]
            more = page["has_more"]
            after = page["data"][-1]["sequence"] if page["data"] else after

    async def _request(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        headers = {"authorization": f"Bearer {self.key}"}
        try:
            async with httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False) as client:
                content: dict[str, Any] = (await client.request(method, path, **options)).raise_for_status().json()
                return content
        except httpx.HTTPError as error:
            raise StackError(
                f"the {self.name} at {self.url} does not answer: {error}", fix="see `shopmesh status`"
            ) from error
