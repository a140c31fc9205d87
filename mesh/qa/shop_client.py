"""A client of the shop's JSON API, for the demo, the load and tests."""

import json
import uuid
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import httpx

#: With these statuses the request may or may not have taken effect.
_UNKNOWN_STATUSES = frozenset({408, 499, 500, 502, 503, 504})
#: Reasons with the same meaning: another request with this key is in progress, or the service was overloaded.
_UNKNOWN_REASONS = frozenset({"OPERATION_IN_FLIGHT", "OVERLOADED"})
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"


class RequestRejected(Exception):
    """The shop rejected the request, which had no effect."""

    def __init__(self, status: int, content: dict[str, Any]) -> None:
        """Take the HTTP status and a google.rpc.Status as JSON."""
        super().__init__(content.get("message") or f"HTTP {status}")
        self.status = status
        self.message: str = content.get("message", "")
        details = {detail.get("@type"): detail for detail in content.get("details", ())}
        #: The reason of docs/errors.md; empty for an error of the edge itself.
        self.reason: str = details.get(_ERROR_INFO, {}).get("reason", "")
        #: The invalid fields.
        self.fields: list[str] = [one["field"] for one in details.get(_BAD_REQUEST, {}).get("fieldViolations", ())]


class OutcomeUnknown(Exception):
    """The request may or may not have taken effect; it can be repeated with the same key."""


class ShopApiClient:
    """Calls the shop, anonymously or as a user.

    Every request raises RequestRejected or OutcomeUnknown when it does not succeed.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        self._credentials: dict[str, str] | None = None
        self._token = ""

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, *, connections: int = 20, seconds: float = 15.0) -> AsyncIterator[Self]:
        """Open a client with a limit of connections and a timeout in seconds."""
        limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
        # Proxies of the environment are not for calls to this machine.
        async with httpx.AsyncClient(base_url=url, limits=limits, timeout=seconds, trust_env=False) as client:
            yield cls(client)

    async def sign_in(self, email: str, password: str) -> "ShopApiClient":
        """Return a client for this user, which signs in again when its token expires."""
        client = ShopApiClient(self._client)
        client._credentials = {"email": email, "password": password}
        await client._renew()
        return client

    async def get(self, path: str, **query: str | int) -> dict[str, Any]:
        """Send a GET request and return the reply."""
        return await self._call("GET", path, params=query)

    async def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a POST request and return the reply."""
        return await self._call("POST", path, json=body)

    async def put(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Send a PUT request and return the reply."""
        return await self._call("PUT", path, json=body)

    async def watch(self, path: str) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the messages of a server-sent event stream."""
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
            raise OutcomeUnknown(repr(error)) from error

    async def _call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            return await self._call_once(method, path, **options)
        except RequestRejected as rejection:
            if rejection.reason != "TOKEN_INVALID" or self._credentials is None:
                raise
        await self._renew()
        return await self._call_once(method, path, **options)

    async def _call_once(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        try:
            response = await self._client.request(method, path, headers=self._headers, **options)
        except httpx.HTTPError as error:
            raise OutcomeUnknown(repr(error)) from error
        _check(response)
        content: dict[str, Any] = response.json()
        return content

    async def _renew(self) -> None:
        tokens = await self._call_once("POST", "/v1/auth/login", json=self._credentials)
        self._token = tokens["accessToken"]

    @property
    def authorization(self) -> str:
        """The value of the header `authorization`, also for gRPC; empty for the anonymous client."""
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
    rejection = RequestRejected(response.status_code, content)
    if response.status_code in _UNKNOWN_STATUSES or rejection.reason in _UNKNOWN_REASONS:
        raise OutcomeUnknown(f"HTTP {response.status_code}: {rejection.message}")
    raise rejection


def new_key() -> str:
    """Return a new request id."""
    return uuid.uuid4().hex


def state(message: dict[str, Any], field: str = "state") -> str:
    """Return a state without the prefix of its enum: CONFIRMED for ORDER_STATE_CONFIRMED."""
    return str(message[field]).partition("STATE_")[2]


def amount(money: dict[str, Any]) -> str:
    """Return an amount as text: 1,234.50 THB."""
    return f"{int(money['units']):,}.{int(money['nanos']) // 10_000_000:02} {money['currencyCode']}"
