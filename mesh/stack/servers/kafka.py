"""Kafka 4.1 as one KRaft node on Java 17; Maven downloads its jars once. Neither is part of a wheel."""

import asyncio
import fcntl
import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from contextlib import AsyncExitStack
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

from aiokafka.client import AIOKafkaClient
from aiokafka.errors import KafkaError

from mesh.errors import StackError
from mesh.stack.process import Program, running

VERSION = "4.1.1"
_JAVA = 17
#: A small heap and the quick compiler: the broker starts within four seconds, in 160 MB.
_JVM = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xms64m", "-Xmx256m")
_SETTINGS = {
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.listener.names": "CONTROLLER",
    "num.partitions": "3",
    "num.network.threads": "2",
    "num.io.threads": "2",
    "offsets.topic.num.partitions": "4",
    "offsets.topic.replication.factor": "1",
    "transaction.state.log.num.partitions": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.num.partitions": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "log.cleaner.dedupe.buffer.size": "4194304",
}


#: The account that may do everything.
OPERATOR = "operator"
#: With accounts, only what an ACL allows is allowed, and no topic is created by its first use.
_WITH_ACCOUNTS = {
    "sasl.enabled.mechanisms": "PLAIN",
    "sasl.mechanism.inter.broker.protocol": "PLAIN",
    "sasl.mechanism.controller.protocol": "PLAIN",
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": f"User:{OPERATOR}",
    "auto.create.topics.enable": "false",
}
_PLAIN_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"


class Kafka:
    """One broker with its data in `folder`, listening on two ports of the loopback interface."""

    def __init__(
        self,
        folder: Path,
        *,
        port: int,
        controller_port: int,
        jars: Path | None = None,
        accounts: Mapping[str, str] | None = None,
    ) -> None:
        """`accounts` are passwords by account, one of them OPERATOR; without any, all clients may do everything."""
        self.folder = folder
        self._accounts = accounts or {}
        self.bootstrap = f"127.0.0.1:{port}"
        self._controller = f"127.0.0.1:{controller_port}"
        self._jars = jars or _cache(folder) / f"kafka-{VERSION}"
        self._exit = AsyncExitStack()

    def program(self) -> Program:
        """Return the program that serves."""
        return Program(
            name="kafka",
            argv=self._java("kafka.Kafka", str(self.folder / "server.properties")),
            prepare=self._prepare,
            ready=self._is_serving,
            address=self.bootstrap,
            start_seconds=60.0,
            fix=f"if its data in {self.folder} is damaged, `shopmesh down --wipe` deletes it for a fresh start",
        )

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(running(self.program(), self.folder / "kafka.log"))
            self._exit = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._exit.aclose()

    async def _prepare(self) -> None:
        if problem := missing():
            raise StackError(problem, fix="install Java 17 and Maven, or use `--events redis`")
        self.folder.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(_fetch, self._jars)
        settings = _SETTINGS | self._listeners() | {"log.dirs": str(self.folder / "data")}
        properties = self.folder / "server.properties"
        properties.unlink(missing_ok=True)
        with os.fdopen(os.open(properties, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.writelines(f"{name}={value}\n" for name, value in settings.items())
        if not (self.folder / "data" / "meta.properties").exists():
            arguments = self._java("kafka.tools.StorageTool", "format", "--cluster-id", "c2hvcG1lc2gtbG9jYWwtMQ")
            arguments += ("--config", str(properties))
            async with running(Program(name="kafka format", argv=arguments), self.folder / "format.log"):
                pass

    def _listeners(self) -> dict[str, str]:
        protocol = "SASL_PLAINTEXT" if self._accounts else "PLAINTEXT"
        listeners = {
            "controller.quorum.voters": f"1@{self._controller}",
            "listeners": f"{protocol}://{self.bootstrap},CONTROLLER://{self._controller}",
            "advertised.listeners": f"{protocol}://{self.bootstrap}",
            "inter.broker.listener.name": protocol,
            "listener.security.protocol.map": f"{protocol}:{protocol},CONTROLLER:{protocol}",
        }
        if not self._accounts:
            return listeners
        users = " ".join(f'user_{name}="{password}"' for name, password in self._accounts.items())
        login = f'{_PLAIN_LOGIN} username="{OPERATOR}" password="{self._accounts[OPERATOR]}" {users};'
        logins = {f"listener.name.{name}.plain.sasl.jaas.config": login for name in ("sasl_plaintext", "controller")}
        return listeners | _WITH_ACCOUNTS | logins

    def connection(self, account: str = OPERATOR) -> dict[str, Any]:
        """Return the options of a client, with an account if there are any."""
        options = {"bootstrap_servers": self.bootstrap}
        if not self._accounts:
            return options
        sasl = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN"}
        return options | sasl | {"sasl_plain_username": account, "sasl_plain_password": self._accounts[account]}

    async def _is_serving(self) -> bool:
        host, _, port = self.bootstrap.rpartition(":")
        try:
            # The client below logs an error when nothing listens, so check first.
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            return False
        writer.close()
        client = AIOKafkaClient(**self.connection(), request_timeout_ms=2_000)
        try:
            await client.bootstrap()
            return bool(client.cluster.brokers())
        except (KafkaError, OSError):
            return False
        finally:
            await client.close()

    def _java(self, *arguments: str) -> tuple[str, ...]:
        logging = files("mesh.stack.servers") / "kafka_log4j2.properties"
        jvm = (*_JVM, f"-Dlog4j2.configurationFile={logging}", "-cp", f"{self._jars}/*")
        return (_tool("java") or "java", *jvm, *arguments)


def missing() -> str | None:
    """Return what this machine lacks to run Kafka, or None."""
    java = _tool("java")
    if java is None:
        return "Kafka needs Java 17, and there is no `java`"
    output = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr  # noqa: S603
    found = re.search(r'version "(\d+)', output)
    if found is None or int(found[1]) < _JAVA:
        return f"Kafka needs Java {_JAVA} or newer, and `{java}` is {found[1] if found else 'not a Java'}"
    return None if _tool("mvn") else "Kafka's jars are downloaded by Maven, and there is no `mvn`"


def _tool(name: str) -> str | None:
    at_home = Path(os.environ.get("JAVA_HOME", ""), "bin", name)
    return str(at_home) if "JAVA_HOME" in os.environ and at_home.exists() else shutil.which(name)


def _cache(fallback: Path) -> Path:
    """Return the user's cache folder, or the fallback where none is writable."""
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "shopmesh")
        cache.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):
        return fallback
    return cache


def _fetch(jars: Path) -> None:
    """Download Kafka's jars to a folder with Maven, once, also when several stacks start at the same time."""
    jars.parent.mkdir(parents=True, exist_ok=True)
    with jars.with_name(f"{jars.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if jars.exists():
            return
        part = jars.with_name(f"{jars.name}.new")
        shutil.rmtree(part, ignore_errors=True)
        pom = (files("mesh.stack.servers") / "kafka_pom.xml").read_text().replace("{VERSION}", VERSION)
        part.mkdir()
        (part / "pom.xml").write_text(pom)
        arguments = ["-q", "-B", "-f", f"{part}/pom.xml", "dependency:copy-dependencies", f"-DoutputDirectory={part}"]
        done = subprocess.run([_tool("mvn") or "mvn", *arguments], capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise StackError("Maven could not download Kafka", log=done.stdout[-2000:].strip())
        part.rename(jars)
