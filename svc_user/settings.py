"""What svc_user can be told from outside."""

from dataclasses import dataclass, field
from typing import Annotated

import chassis
from chassis.settings import Provided

_DAY = 86_400


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(chassis.Settings):
    """The user service's own settings."""

    #: Seals the private signing keys in the database: 32 random bytes in base64, the same for every replica.
    signing_key_secret: Annotated[str, Provided("secret")] = field(default="", repr=False)
    #: Seconds that a key signs before the next one follows.
    key_rotation_seconds: int = 30 * _DAY
    #: Seconds that an access token is valid: for so long it outlives its session and its user's roles.
    access_token_seconds: int = 900
    #: Seconds after which a session expires that nobody refreshes.
    session_idle_seconds: int = 14 * _DAY
    #: Seconds after which every session expires.
    session_seconds: int = 90 * _DAY
    #: Password hashes computed at the same time; each takes 19 MiB.
    password_threads: int = 2
    #: Password hashes that may wait; more are refused at once.
    password_queue: int = 100
    #: An account that has the role `admin` from the start on; empty makes none.
    admin_email: Annotated[str, Provided("admin_email")] = ""
    #: The password of that account, when it has to be made.
    admin_password: Annotated[str, Provided("admin_password")] = field(default="", repr=False)
    #: Seconds between two looks for what is due: keys to make or retire, rows to forget.
    upkeep_seconds: float = 60.0
