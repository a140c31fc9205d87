"""A sender of messages to users as a process: `python -m mesh.simulators.message_sender`.

It keeps what it is sent, for developers and tests to read. docs/simulators.md describes its API and its faults.
"""

import logging
import secrets
from contextlib import AbstractAsyncContextManager

import orjson
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from mesh.simulators import serving
from mesh.simulators.engine import Reply, SimulatorCore
from mesh.simulators.errors import ApiError
from mesh.simulators.faults import Fault, FaultInjector, Vocabulary
from mesh.simulators.fields import IDENTIFIER, Fields
from mesh.simulators.serving import Settings, json_response, read_object
from mesh.simulators.store import timestamp

SCHEMA = """
CREATE TABLE IF NOT EXISTS messages (
    sequence    INTEGER PRIMARY KEY AUTOINCREMENT,
    id          TEXT NOT NULL UNIQUE,
    recipient   TEXT NOT NULL,
    template    TEXT NOT NULL,
    content     TEXT NOT NULL,
    create_time TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS messages_by_recipient ON messages (recipient, sequence);
"""
VOCABULARY = Vocabulary(
    operations=("send",),
    faults={
        "ok": Fault.NONE,
        "declined": Fault.DECLINED,
        "500": Fault.ERROR,
        "500_then_done": Fault.ERROR_AFTER,
        "timeout_then_done": Fault.NO_REPLY_AFTER,
    },
)

log = logging.getLogger(__name__)


class MessageSender:
    """The API of the message sender."""

    def __init__(self, settings: Settings) -> None:
        self.core = SimulatorCore(settings, SCHEMA, FaultInjector(VOCABULARY, declinable="send"))

    def routes(self) -> list[Route]:
        """Return every route of the API."""
        return [
            Route("/v1/messages", self.send, methods=["POST"]),
            Route("/v1/messages", self.list_messages, methods=["GET"]),
            *self.core.routes(),
        ]

    def open(self) -> AbstractAsyncContextManager[None]:
        """Run while the block runs."""
        return self.core.open()

    async def send(self, request: Request) -> Response:
        """Keep a message; there is one for each Idempotency-Key."""
        values = await read_object(request)
        fields = Fields(values)
        recipient, template = fields.text("to"), fields.text("template", IDENTIFIER)
        fields.object("values")
        fields.end()
        key = Fields(request.headers).text("idempotency-key", IDENTIFIER)

        def effect(fault: Fault) -> Reply:
            if fault is Fault.DECLINED:
                raise ApiError(422, "recipient_refused", "messages to this recipient are not accepted", param="to")
            message_id, content = f"msg_{secrets.token_hex(12)}", orjson.dumps(values["values"]).decode()
            self.core.store.execute(
                "INSERT INTO messages (id, recipient, template, content, create_time)"
                " VALUES (:id, :recipient, :template, :content, :now)",
                id=message_id,
                recipient=recipient,
                template=template,
                content=content,
                now=timestamp(),
            )
            # What a developer looks for: `shopmesh logs message_sender`.
            log.info("to %s: %s %s", recipient, template, content)
            return Reply(201, {"id": message_id})

        return await self.core.perform(request, "send", values, effect, key=key)

    async def list_messages(self, request: Request) -> Response:
        """Return the last messages to a recipient, the newest first."""
        query = Fields(request.query_params)
        recipient = query.text("to")
        query.end()
        rows = self.core.store.rows(
            "SELECT * FROM messages WHERE recipient = :recipient ORDER BY sequence DESC LIMIT 100", recipient=recipient
        )
        return json_response(
            {
                "data": [
                    {
                        "id": row["id"],
                        "to": row["recipient"],
                        "template": row["template"],
                        "values": orjson.loads(row["content"]),
                        "create_time": row["create_time"],
                    }
                    for row in rows
                ]
            }
        )


def make_app(settings: Settings) -> Starlette:
    """Return the application."""
    sender = MessageSender(settings)
    return serving.application(sender.routes(), settings.api_key, sender.open)


if __name__ == "__main__":
    serving.run(make_app)
