"""The shop as a browser sees it: JSON over HTTP through the edge. What the demo and the load are made of."""

import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import httpx

#: Statuses after which nobody can say whether the request took effect.
_UNKNOWN = frozenset({408, 499, 500, 502, 503, 504})
#: Reasons that say the same: another request of this key is at work, or the service had no time to say how it ended.
_UNDECIDED = frozenset({"OPERATION_IN_FLIGHT", "OVERLOADED"})
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"


class Refused(Exception):
    """The shop said no, and nothing happened."""

    def __init__(self, status: int, content: dict[str, Any]) -> None:
        """`content` is a google.rpc.Status as JSON."""
        super().__init__(content.get("message") or f"HTTP {status}")
        self.status = status
        self.message: str = content.get("message", "")
        details = {detail.get("@type"): detail for detail in content.get("details", ())}
        #: As the catalogue of errors has it; empty for what the edge itself refuses.
        self.reason: str = details.get(_ERROR_INFO, {}).get("reason", "")
        #: The fields that are wrong.
        self.fields: list[str] = [one["field"] for one in details.get(_BAD_REQUEST, {}).get("fieldViolations", ())]


class Unknown(Exception):
    """Nobody knows whether it happened; the same request with the same key may be sent again."""


class Shopfront:
    """Calls the shop, as a user once signed in."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._credentials: dict[str, str] | None = None
        self._token = ""

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, connections: int = 20, seconds: float = 15.0) -> AsyncIterator[Self]:
        """Keep at most so many connections; wait so many seconds for an answer."""
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        # A proxy that the environment names has no business between this machine and itself.
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=seconds, trust_env=False) as client:
            yield cls(client)

    async def sign_in(self, email: str, password: str) -> "Shopfront":
        """The same shop, seen by this user, who signs in again whenever the token is too old."""
        inside = Shopfront(self._client)
        inside._credentials = {"email": email, "password": password}
        await inside._renew()
        return inside

    async def get(self, path: str, **query: str | int) -> dict[str, Any]:
        return await self._call("GET", path, params=query)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._call("POST", path, json=body)

    async def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return await self._call("PUT", path, json=body)

    async def watch(self, path: str) -> AsyncGenerator[dict[str, Any], None]:
        """The messages of a server-sent event stream, as they come."""
        headers = self._headers | {"accept": "text/event-stream"}
        try:
            async with self._client.stream("GET", path, headers=headers, timeout=None) as response:
                if response.status_code != httpx.codes.OK:
                    await response.aread()
                    _check(response)
                async for line in response.aiter_lines():
                    if line.startswith("data:"):
                        yield json.loads(line.removeprefix("data:"))
        except httpx.HTTPError as error:
            raise Unknown(repr(error)) from error

    async def _call(self, method: str, path: str, **what: Any) -> dict[str, Any]:
        try:
            return await self._call_once(method, path, **what)
        except Refused as refusal:
            if refusal.reason != "TOKEN_INVALID" or self._credentials is None:
                raise
        await self._renew()
        return await self._call_once(method, path, **what)

    async def _call_once(self, method: str, path: str, **what: Any) -> dict[str, Any]:
        try:
            response = await self._client.request(method, path, headers=self._headers, **what)
        except httpx.HTTPError as error:
            raise Unknown(repr(error)) from error
        _check(response)
        content: dict[str, Any] = response.json()
        return content

    async def _renew(self) -> None:
        tokens = await self._call_once("POST", "/v1/auth/login", json=self._credentials)
        self._token = tokens["accessToken"]

    @property
    def authorization(self) -> str:
        """The header that shows who is signed in, which gRPC takes, too; empty when nobody is."""
        return f"Bearer {self._token}" if self._token else ""

    @property
    def _headers(self) -> dict[str, str]:
        return {"authorization": self.authorization} if self._token else {}


def _check(response: httpx.Response) -> None:
    if response.is_success:
        return
    try:
        content = response.json()
    except ValueError:
        content = {}
    refusal = Refused(response.status_code, content)
    if response.status_code in _UNKNOWN or refusal.reason in _UNDECIDED:
        raise Unknown(f"HTTP {response.status_code}: {refusal.message}")
    raise refusal


def new_key() -> str:
    """A key for a request that changes something."""
    return uuid.uuid4().hex


def state(message: dict[str, Any], field: str = "state") -> str:
    """A state without the name of its enum: CONFIRMED for ORDER_STATE_CONFIRMED."""
    return str(message[field]).partition("STATE_")[2]


def amount(money: dict[str, Any]) -> str:
    """An amount as people write it: 1,234.50 THB."""
    return f"{int(money['units']):,}.{int(money['nanos']) // 10_000_000:02} {money['currencyCode']}"
