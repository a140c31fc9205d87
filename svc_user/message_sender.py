"""The API that sends messages to users, as svc_user uses it.

Every call ends Ok, Refused or Unknown (chassis.external.api); after Unknown it may be repeated under the same key.
"""

from datetime import datetime

from chassis.external.api import CallResult, ExternalApi, field


class MessageSender:
    """The client of the message sender's API."""

    def __init__(self, *, url: str, key: str, timeout: float = 10.0) -> None:
        """Call the API at `url`; each call takes at most `timeout` seconds."""
        self._api = ExternalApi(url=url, key=key, timeout=timeout)

    async def send_reset_code(self, *, key: str, email: str, code: str, expire_time: datetime) -> CallResult[str]:
        """Send a code for a new password; the sender accepts one message for each key, and a repeat returns its id."""
        body = {
            "to": email,
            "template": "password_reset",
            "values": {"code": code, "expire_time": expire_time.isoformat()},
        }
        return await self._api.call(
            "POST", "/v1/messages", read=lambda data: field(data, "id", str), body=body, key=key
        )

    async def aclose(self) -> None:
        """Close the connections."""
        await self._api.aclose()
