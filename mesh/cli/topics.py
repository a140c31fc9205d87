"""`shopmesh topics`: creates the Kafka topics of the contract."""

from typing import Annotated

import typer
import uvloop
from rich.table import Table

from chassis.settings import Settings, SettingsError
from mesh.cli.terminal import AsJson, out, print_json
from mesh.errors import StackError
from mesh.stack.kafka_topics import TopicState, create


def topics(
    *,
    grant: Annotated[
        bool, typer.Option("--grant", help="Also grant each service its rights, as the Kafka account of its name.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Create the Kafka topics of the contract that there are not, as KAFKA_* and EVENT_PREFIX say.

    The account needs the rights to create topics and to alter the cluster. The local stack does this by itself.
    """
    try:
        settings = Settings.from_env()
    except SettingsError as error:
        raise StackError(str(error)) from error
    if not settings.kafka_bootstrap:
        raise StackError("KAFKA_BOOTSTRAP is not set", fix="name a broker: KAFKA_BOOTSTRAP=host:9092 shopmesh topics")
    states = uvloop.run(create(settings, grant=grant))
    if json:
        print_json({one.name: {"partitions": one.partitions, "new": one.is_new} for one in states})
    else:
        _print(states)


def _print(states: list[TopicState]) -> None:
    table = Table("topic", "partitions", "", box=None, pad_edge=False)
    for one in states:
        differs = "" if one.partitions == one.declared else f"[red]the contract says {one.declared}[/]"
        table.add_row(one.name, str(one.partitions), "created" if one.is_new else differs)
    out.print(table)
