"""Calls to the JSON API of an external provider.

Every call is bounded in time and size and has one of three results, distinguished by `match`:

* Ok       the operation took effect, and this is its result
* Refused  it did not take effect, and a repetition will not change that
* Unknown  it may have taken effect: read the state, or repeat it under the same key; never treat it as a failure
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Generic, TypeAlias, TypeVar

import httpx
import orjson

from chassis.external.breaker import Breaker
from chassis.metrics import EXTERNAL

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Ok(Generic[T]):
    """The operation took effect; `value` is the parsed response."""

    value: T


@dataclass(frozen=True, slots=True)
class Refused:
    """The API rejected the operation: `code` is its own, `message` is for logs, never for customers."""

    code: str
    message: str = ""
    param: str | None = None


@dataclass(frozen=True, slots=True)
class Unknown:
    """The outcome is unknown; `cause`: timeout, unreachable, http_<status>, malformed_answer, answer_mismatch.

    `circuit_open` means that no request was sent, because several before it had no outcome.
    """

    cause: str


CallResult: TypeAlias = Ok[T] | Refused | Unknown


def field(answer: Any, name: str, kind: type[T]) -> T:
    """Return a field of a partner's JSON; raises TypeError unless it is of exactly this type (True is no int)."""
    value = answer[name]
    if type(value) is not kind:
        raise TypeError(f"{name} is not of type {kind.__name__}")
    return value


#: The 4xx that may pass: a key is being rotated, or the API is overloaded.
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
    """The API of one provider; open as long as the service runs."""

    def __init__(self, *, url: str, key: str, timeout: float, max_response_bytes: int = 1 << 20) -> None:
        """Call the API at `url` with the bearer token `key`; `timeout`, in seconds, is that of a whole call."""
        self._name = httpx.URL(url).netloc.decode()
        self.breaker = Breaker(self._name)
        self._timeout = timeout
        self._max_response_bytes = max_response_bytes
        self._http = httpx.AsyncClient(
            base_url=url,
            # Uncompressed, or the limit of a response would bound only its compressed size.
            headers={"authorization": f"Bearer {key}", "accept-encoding": "identity"},
            timeout=timeout,  # of each phase; `call` sets the same limit for all phases together
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
        timeout: float | None = None,  # noqa: ASYNC109  the API's, unless a call has less time
    ) -> CallResult[T]:
        """Make one request. `read` parses the JSON of the response; `key` is sent as the Idempotency-Key."""
        request = self._http.build_request(method, path, json=body, params=params)
        if key is not None:
            request.headers["idempotency-key"] = key
        if not self.breaker.admit():
            return Unknown("circuit_open")
        started = time.perf_counter()
        result: CallResult[T]
        try:
            result = _result(*await self._exchange(request, timeout or self._timeout), read)
        except (TimeoutError, httpx.HTTPError) as error:
            result = Unknown("timeout" if isinstance(error, TimeoutError) else "unreachable")
        except BaseException:
            self.breaker.released()
            raise
        self._count(method, result)
        EXTERNAL.labels(self._name, type(result).__name__.lower()).observe(time.perf_counter() - started)
        return result

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    def _count(self, method: str, result: CallResult[T]) -> None:
        """Count a result for the breaker. An API that can be read may still execute nothing."""
        if isinstance(result, Unknown):
            self.breaker.failed()
        elif method == "GET":
            self.breaker.released()
        else:
            self.breaker.succeeded()

    async def _exchange(self, request: httpx.Request, seconds: float) -> tuple[int, bytes]:
        """Return the status and the body, empty, and so malformed, when it exceeds the limit; raises TimeoutError."""
        async with asyncio.timeout(seconds):
            response = await self._http.send(request, stream=True, follow_redirects=False)
            try:
                content = bytearray()
                async for chunk in response.aiter_raw():
                    content += chunk
                    if len(content) > self._max_response_bytes:
                        return response.status_code, b""
                return response.status_code, bytes(content)
            finally:
                await response.aclose()


def _result(status: int, content: bytes, read: Callable[[Any], T]) -> CallResult[T]:
    is_final = 400 <= status < 500 and status not in _NOT_FINAL
    if not (200 <= status < 300 or is_final):
        return Unknown(f"http_{status}")
    try:
        parsed = orjson.loads(content)
        return _refused(dict(parsed["error"])) if is_final else Ok(read(parsed))
    except (ValueError, TypeError, KeyError):
        return Unknown("malformed_answer")


def _refused(error: Mapping[str, Any]) -> Refused:
    param = error.get("param")
    return Refused(str(error["code"]), str(error.get("message", "")), None if param is None else str(param))
