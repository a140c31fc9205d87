"""The settings of svc_user."""

from dataclasses import dataclass, field
from typing import Annotated

import chassis
from chassis.settings import Provided

_DAY = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(chassis.Settings):
    """Settings beyond those of every service."""

    #: Encrypts the private signing keys in the database: 32 random bytes in base64, the same for every replica.
    signing_key_secret: Annotated[str, Provided("secret")] = field(default="", repr=False)
    #: Seconds that a key signs before the next key replaces it.
    key_rotation_seconds: int = 30 * _DAY
    #: Seconds that an access token is valid, unless its session ends.
    access_token_seconds: int = 900
    #: Seconds after which a session expires without a refresh.
    session_idle_seconds: int = 14 * _DAY
    #: Seconds after which every session expires.
    session_seconds: int = 90 * _DAY
    #: Password hashes computed at the same time; each takes 19 MiB.
    password_threads: int = 2
    #: Password hashes that may wait; further ones fail at once with OVERLOADED.
    password_queue: int = 100
    #: The email address of the first admin; empty creates none.
    admin_email: Annotated[str, Provided("admin_email")] = ""
    #: The password of the first admin, when the account is created.
    admin_password: Annotated[str, Provided("admin_password")] = field(default="", repr=False)
    #: The API that sends messages to users; without it no codes for new passwords are sent.
    message_sender_url: Annotated[str, Provided("api_url", "message_sender")] = ""
    #: The key of its calls.
    message_sender_key: Annotated[str, Provided("api_key", "message_sender")] = field(default="", repr=False)
    #: Days for which an expired session is stored: its end is shown, and a reused token is noticed.
    session_retention_days: float = 7.0
    #: Days for which failed logins, and requests for new passwords, of an email address are stored.
    throttle_retention_days: float = 1.0
    #: Days for which a device or address that has logged in is remembered.
    login_client_retention_days: float = 180.0
    #: Seconds between two looks for messages that are due.
    message_seconds: float = 1.0
    #: Seconds between two runs of the upkeep: rotation of keys, erasure of used refresh tokens' successors.
    upkeep_seconds: float = 60.0
