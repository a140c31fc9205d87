"""An HTTP client that sends requests exactly as given."""

import http.client
import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Response:
    """A response; `headers` has the values by lower-case name."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def violations(self) -> list[str]:
        """The fields that a BadRequest names."""
        return [
            violation["field"] for detail in self.json["details"] for violation in detail.get("fieldViolations", ())
        ]


def fetch(
    port: int, method: str, path: str, body: bytes | None = None, headers: list[tuple[str, str]] | None = None
) -> Response:
    """Send one request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers or ():
            connection.putheader(name, value.encode("latin-1"))
        if body is not None:
            connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Response(response.status, found, response.read())
    finally:
        connection.close()
