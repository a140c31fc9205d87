"""The form of a contract case, which is named after its row of the contract."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.edge.client import Response

Check = Callable[[Response], object]
JSON = ("content-type", "application/json")
TYPE = "type.googleapis.com/"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A request and its expected response."""

    id: str
    method: str
    path: str
    body: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    status: int = 200
    #: What the JSON holds at least; a list or text is compared whole.
    holds: Any = None
    #: The field that the first violation names.
    field: str | None = None
    #: Must not return False.
    check: Check | None = None
    #: Runs against the edge with every JSON setting inverted.
    other: bool = False


def get(id: str, path: str, holds: Any = None, **more: Any) -> Case:  # noqa: A002 - ids are what the table is about
    return Case(id=id, method="GET", path=path, holds=holds, **more)


def send(id: str, method: str, path: str, body: Any, holds: Any = None, **more: Any) -> Case:  # noqa: A002
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Case(id=id, method=method, path=path, body=raw, headers=more.pop("headers", (JSON,)), holds=holds, **more)


def post(id: str, path: str, body: Any, holds: Any = None, **more: Any) -> Case:  # noqa: A002
    return send(id, "POST", path, body, holds, **more)


def bad(id: str, path: str, field: str | None = None, **more: Any) -> Case:  # noqa: A002
    return get(id, path, status=400, field=field, **more)


def bad_body(id: str, body: Any, field: str | None = None, **more: Any) -> Case:  # noqa: A002
    return post(id, "/v1/echo", body, status=400, field=field, **more)


def echo(id: str, body: Any, holds: Any, **more: Any) -> Case:  # noqa: A002
    return post(id, "/v1/echo", body, holds, **more)


def header(name: str, value: str | None) -> Check:
    def check(answer: Response) -> None:
        assert answer.headers.get(name) == value, (name, answer.headers)

    return check


def lacks(*names: str) -> Check:
    """Check that the reply has none of these keys."""

    def check(answer: Response) -> None:
        assert not set(names) & set(answer.json), answer.json

    return check


def text(expected: bytes, media_type: str | None = None) -> Check:
    def check(answer: Response) -> None:
        assert answer.body == expected
        if media_type is not None:
            assert answer.headers["content-type"] == media_type

    return check


def metadata(present: dict[str, str] | None = None, absent: tuple[str, ...] = ()) -> Check:
    """Check the metadata that the back end received."""

    def check(answer: Response) -> None:
        seen = answer.json["metadata"]
        for name, value in (present or {}).items():
            assert seen.get(name) == value, seen
        assert not set(absent) & set(seen), seen

    return check


def mask(expected: str) -> Check:
    def check(answer: Response) -> None:
        assert answer.json["updateMask"] == expected

    return check


def detail_types(*expected: str) -> Check:
    def check(answer: Response) -> None:
        assert [detail["@type"].removeprefix(TYPE) for detail in answer.json["details"]] == list(expected)

    return check
