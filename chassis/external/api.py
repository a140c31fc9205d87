"""Asks a partner outside of the mesh over its JSON API.

Every call is bounded in time and size and ends in one of three ways, told apart by `match`:

* Ok       it was done, and this is the answer
* Refused  it was not done, and asking again will not change that
* Unknown  it may have been done: ask what became of it, or repeat it under the same key, and never
           take it for a failure
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Generic, TypeAlias, TypeVar

import httpx
import orjson

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ok(Generic[T]):
    """The partner did what was requested; `value` is its answer."""

    value: T


@dataclass(frozen=True, slots=True)
class Refused:
    """`code` is a word of the partner's own vocabulary; `message` is for logs, never for shoppers."""

    code: str
    message: str = ""
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """`cause`: timeout, unreachable, http_<status>, malformed_answer, answer_mismatch."""

    cause: str


CallResult: TypeAlias = Ok[T] | Refused | Unknown


def field(answer: Any, name: str, kind: type[T]) -> T:
    """Return a field of a partner's JSON; raises TypeError unless it is of exactly this type (True is no int)."""
    value = answer[name]
    if type(value) is not kind:
        raise TypeError(f"{name} is not of type {kind.__name__}")
    return value


# Of the 4xx these do not say "never": our key or theirs is being changed, or they are busy.
_NOT_FINAL = frozenset(
    {
        HTTPStatus.UNAUTHORIZED,
        HTTPStatus.FORBIDDEN,
        HTTPStatus.REQUEST_TIMEOUT,
        HTTPStatus.TOO_EARLY,
        HTTPStatus.TOO_MANY_REQUESTS,
    }
)


class ExternalApi:
    """One partner's API; open as long as the service is."""

    def __init__(self, *, url: str, key: str, timeout: float, answer_limit: int = 1 << 20) -> None:
        self._timeout = timeout
        self._answer_limit = answer_limit
        self._http = httpx.AsyncClient(
            base_url=url,
            # Uncompressed, or the limit on an answer would bound only its packed size.
            headers={"authorization": f"Bearer {key}", "accept-encoding": "identity"},
            timeout=timeout,  # of each phase; `call` sets the same limit to all of them together
            trust_env=False,
        )

    async def call(
        self,
        method: str,
        path: str,
        *,
        read: Callable[[Any], T],
        body: Mapping[str, Any] | None = None,
        params: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> CallResult[T]:
        """Asks once. `read` makes the answer of its JSON; `key` is sent as the Idempotency-Key."""
        request = self._http.build_request(method, path, json=body, params=params)
        if key is not None:
            request.headers["idempotency-key"] = key
        try:
            async with asyncio.timeout(self._timeout):
                status, answer = await self._exchange(request)
        except TimeoutError:
            return Unknown("timeout")
        except httpx.HTTPError:
            return Unknown("unreachable")
        return _outcome(status, answer, read)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _exchange(self, request: httpx.Request) -> tuple[int, bytes]:
        """Return the status and the body, which is cut where it passes the limit and so fails to parse."""
        response = await self._http.send(request, stream=True, follow_redirects=False)
        try:
            answer = bytearray()
            async for chunk in response.aiter_raw():
                answer += chunk
                if len(answer) > self._answer_limit:
                    return response.status_code, b""
            return response.status_code, bytes(answer)
        finally:
            await response.aclose()


def _outcome(status: int, answer: bytes, read: Callable[[Any], T]) -> CallResult[T]:
    final_refusal = 400 <= status < 500 and status not in _NOT_FINAL
    if not (200 <= status < 300 or final_refusal):
        return Unknown(f"http_{status}")
    try:
        parsed = orjson.loads(answer)
        return _refused(dict(parsed["error"])) if final_refusal else Ok(read(parsed))
    except (ValueError, TypeError, KeyError):
        return Unknown("malformed_answer")


def _refused(error: Mapping[str, Any]) -> Refused:
    param = error.get("param")
    return Refused(str(error["code"]), str(error.get("message", "")), None if param is None else str(param))
