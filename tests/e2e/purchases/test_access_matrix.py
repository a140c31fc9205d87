"""Who may call what, by every protocol: each RPC of the contract with each role, against the reviewed table.

The calls are empty, and for most methods not valid: access is decided before that. A method that the table does not
list fails the test of the table, so the matrix has no gaps.
"""

import asyncio
import json
import re
import struct
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
import pytest
from google.api.annotations_pb2 import http as http_option
from google.protobuf import descriptor_pool
from google.rpc import error_details_pb2, status_pb2
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from mesh.qa.sample_data.people import admin, courier, staff
from mesh.stack.secrets import Secrets
from shop.contract import RPCS
from shop.services import SERVICES

TABLES = Path(__file__).parents[2] / "contract" / "reviewed_access"
DENIALS = {"TOKEN_MISSING", "TOKEN_INVALID", "ROLE_MISSING", "CALLER_DENIED"}
#: An empty call of these takes effect for whoever may call.
EFFECTIVE = {"/shop.user.v1.AuthService/Logout"}


@dataclass(frozen=True)
class Reviewed:
    """A line of the reviewed table."""

    path: str
    users: tuple[str, ...]
    callers: tuple[str, ...]

    def denial(self, roles):
        """Return the reason that a call from outside is denied with, None where it is admitted."""
        access = self.users[0]
        if access in ("public", "workload"):
            return None
        if not roles:
            return "TOKEN_MISSING"
        return None if access in ("user", "owner") or roles & set(self.users) else "ROLE_MISSING"


def reviewed():
    lines = [line for table in sorted(TABLES.glob("*.txt")) for line in table.read_text("utf-8").splitlines()]
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    return [
        Reviewed(f"/{method}", tuple(users.split(", ")), tuple(callers.split(", ")))
        for method, users, callers, *_ in cells
    ]


MATRIX = reviewed()
FROM_OUTSIDE = [one for one in MATRIX if "edge" in one.callers and one.path not in EFFECTIVE]
INSIDE = [one for one in MATRIX if "edge" not in one.callers]


def test_the_table_lists_every_method():
    assert {one.path for one in MATRIX} == set(RPCS)


@pytest.fixture(scope="module")
def tokens(stack):
    """The Authorization header and the roles of each kind of user."""
    secrets = Secrets(stack.state)
    found = {"": frozenset()}
    for person in (admin(secrets), staff(secrets), courier(secrets)):
        body = {"email": person.email, "password": person.password}
        reply = httpx.post(f"{stack.info['edge']}/v1/auth/login", json=body, timeout=60).raise_for_status()
        found[f"Bearer {reply.json()['accessToken']}"] = frozenset(person.roles)
    return found


async def by_grpc(channel, path, authorization):
    """Return the code and the reason of a call; ("OPEN", "") for a stream that stays open."""
    metadata = (("authorization", authorization),) if authorization else ()
    if RPCS[path].server_streaming:
        call = channel.unary_stream(path)(b"", metadata=metadata, timeout=3)
        try:
            await call.read()
        except grpc.aio.AioRpcError as error:
            return error.code().name, reason_of(error.trailing_metadata())
        call.cancel()
        return "OPEN", ""
    try:
        await channel.unary_unary(path)(b"", metadata=metadata, timeout=20)
    except grpc.aio.AioRpcError as error:
        return error.code().name, reason_of(error.trailing_metadata())
    return "OK", ""


def reason_of(trailers):
    info = error_details_pb2.ErrorInfo()
    for key, value in trailers or ():
        if key == "grpc-status-details-bin":
            for detail in status_pb2.Status.FromString(value).details:
                if detail.Unpack(info):
                    return info.reason
    return ""


def check(denied, expected, *call):
    """Check a reason against the table; other errors than those of access are admissions."""
    assert (denied if denied in DENIALS else None) == expected, call


async def test_grpc(stack, tokens):
    async with grpc.aio.insecure_channel(stack.info["grpc"]) as channel:
        for authorization, roles in tokens.items():
            for one in FROM_OUTSIDE:
                _, reason = await by_grpc(channel, one.path, authorization)
                check(reason, one.denial(roles), one.path, sorted(roles))
            for one in INSIDE:
                code, _ = await by_grpc(channel, one.path, authorization)
                assert code == "UNIMPLEMENTED", one.path


async def test_grpc_web(stack, tokens):
    frame = struct.pack(">BI", 0, 0)
    async with httpx.AsyncClient(base_url=stack.info["edge"], timeout=30) as http:
        for authorization, roles in tokens.items():
            headers = {"content-type": "application/grpc-web+proto"}
            headers |= {"authorization": authorization} if authorization else {}
            for one in MATRIX:
                if RPCS[one.path].server_streaming or one.path in EFFECTIVE:
                    continue
                reply = await http.post(one.path, content=frame, headers=headers)
                found = reply.headers.get("grpc-message", "") + reply.text
                if one in INSIDE:
                    assert reply.headers["grpc-status"] == "12", one.path
                else:
                    denied = next((text[1] for text in MESSAGES if text[0] in found), None)
                    check(denied, one.denial(roles), one.path, sorted(roles))


#: Of gRPC-Web, whose details are in base64, the message is enough.
MESSAGES = (
    ("An access token is required", "TOKEN_MISSING"),
    ("The access token is not valid", "TOKEN_INVALID"),
    ("One of these roles is required", "ROLE_MISSING"),
)


def route(path):
    """Return the HTTP method and the path of an RPC, its variables filled; None without a route."""
    options = descriptor_pool.Default().FindMethodByName(path[1:].replace("/", ".")).GetOptions()
    if not options.HasExtension(http_option):
        return None
    rule = options.Extensions[http_option]
    kind = rule.WhichOneof("pattern")
    return kind.upper(), re.sub(r"{[^}]*}", "x", getattr(rule, kind))


def json_routes(*, streams):
    for service in SERVICES.values():
        assert service.servicer_class, "importing it adds its messages to the pool"
    found = [(one, route(one.path)) for one in FROM_OUTSIDE if RPCS[one.path].server_streaming == streams]
    return [(one, *at) for one, at in found if at]


def reason_in(body):
    return next((detail.get("reason") for detail in body.get("details", ()) if "reason" in detail), "")


async def test_json(stack, tokens):
    async with httpx.AsyncClient(base_url=stack.info["edge"], timeout=30) as http:
        for authorization, roles in tokens.items():
            headers = {"authorization": authorization} if authorization else {}
            for one, method, path in json_routes(streams=False):
                reply = await http.request(method, path, headers=headers, json=None if method == "GET" else {})
                if reply.status_code == 400 and one.denial(roles) is None:
                    continue
                denied = reason_in(reply.json()) if "json" in reply.headers.get("content-type", "") else ""
                check(denied, one.denial(roles), one.path, sorted(roles))


async def test_a_batch_of_reads(stack, tokens):
    reads = [(one, path) for one, method, path in json_routes(streams=False) if method == "GET"]
    async with httpx.AsyncClient(base_url=stack.info["edge"], timeout=30) as http:
        for authorization, roles in tokens.items():
            headers = {"authorization": authorization} if authorization else {}
            for at in range(0, len(reads), 20):
                part = reads[at : at + 20]
                body = {"requests": [{"path": path} for _, path in part]}
                reply = (await http.post("/v1:batchGet", json=body, headers=headers)).raise_for_status()
                for (one, _), read in zip(part, reply.json()["responses"], strict=True):
                    if read["status"] != 400 or one.denial(roles):
                        check(reason_in(read["body"]), one.denial(roles), one.path, sorted(roles))


async def test_websockets(stack, tokens):
    for authorization, roles in tokens.items():
        headers = {"authorization": authorization} if authorization else {}
        for one, _, path in json_routes(streams=True):
            try:
                async with connect(f"ws://{stack.info['grpc']}{path}", additional_headers=headers) as socket:
                    text = await asyncio.wait_for(socket.recv(), 3)
            except (TimeoutError, WebSocketException) as closed:
                text = str(closed)
            found = next((reason for message, reason in MESSAGES if message in str(text)), None)
            check(found or reason_in(parsed(text)), one.denial(roles), one.path, sorted(roles), text)


def parsed(text):
    try:
        body = json.loads(text)
    except ValueError:
        return {}
    body = body.get("error", body) if isinstance(body, dict) else {}
    return body if isinstance(body, dict) else {}
