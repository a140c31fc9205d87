"""The Kafka broker of a stack, its topics, and how services reach it."""

import os
from collections.abc import Iterator
from pathlib import Path

from mesh.services import SERVICES
from mesh.stack.environment import inherited, python
from mesh.stack.ports import Ports
from mesh.stack.process import Program
from mesh.stack.secrets import Secrets
from mesh.stack.servers.kafka import OPERATOR, Kafka

_TOPICS = "topics"


class KafkaServer:
    """A broker with an account for each service; one that the environment names is used as it is."""

    def __init__(self, folder: Path, ports: Ports, secrets: Secrets) -> None:
        """Store data below `folder`."""
        self._bootstrap = os.environ.get("KAFKA_BOOTSTRAP", "")
        self._passwords = (
            {} if self._bootstrap else {name: secrets.account("kafka", name) for name in (OPERATOR, *SERVICES)}
        )
        self._broker = (
            None
            if self._bootstrap
            else Kafka(
                folder / "kafka", port=ports.kafka, controller_port=ports.kafka_controller, accounts=self._passwords
            )
        )

    def programs(self) -> Iterator[Program]:
        """Yield the broker, and the program that creates the topics: services never do."""
        if self._broker:
            yield self._broker.program()
        yield Program(
            name=_TOPICS,
            argv=python("mesh.stack.kafka_topics"),
            env=inherited() | self.environment(OPERATOR) | {"KAFKA_GRANT": str(bool(self._broker)).lower()},
            after=("kafka",) if self._broker else (),
            start_seconds=60.0,
        )

    def environment(self, account: str) -> dict[str, str]:
        """Return the settings that name the broker and an account there."""
        if not self._broker:
            return {"KAFKA_BOOTSTRAP": self._bootstrap}
        return {
            "KAFKA_BOOTSTRAP": self._broker.bootstrap,
            "KAFKA_SECURITY": "SASL_PLAINTEXT",  # on loopback
            "KAFKA_SASL_MECHANISM": "PLAIN",
            "KAFKA_USERNAME": account,
            "KAFKA_PASSWORD": self._passwords[account],
        }
