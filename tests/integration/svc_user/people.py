"""Users, and the calls with which most tests begin."""

import uuid

from chassis.testing import as_user
from shop.user.v1 import auth_service_pb2 as auth_pb
from shop.user.v1 import user_service_pb2 as pb

PASSWORD = "correct horse battery"
ADMIN = ("root@example.com", "the first password")


def a_request_id():
    return uuid.uuid4().hex


def an_email():
    return f"{uuid.uuid4().hex[:12]}@example.com"


async def register(users, email, password=PASSWORD, **fields):
    request = pb.RegisterRequest(email=email, password=password, **{"request_id": a_request_id(), **fields})
    return await users.accounts.Register(request)


async def login(users, email, password=PASSWORD):
    return await users.auth.Login(auth_pb.LoginRequest(email=email, password=password))


async def refresh(users, tokens):
    return await users.auth.RefreshToken(auth_pb.RefreshTokenRequest(refresh_token=tokens.refresh_token))


def bearing(tokens):
    """Make the calls in the block as the user of the tokens."""
    return as_user(f"Bearer {tokens.access_token}")
