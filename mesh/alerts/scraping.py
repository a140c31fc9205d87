"""Scrapes the processes of a stack."""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from itertools import chain
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from mesh.alerts.expressions import Sample
from mesh.stack.state import ProcessRecord, State

_SECONDS = 3.0


def scrape(processes: Sequence[ProcessRecord]) -> list[Sample]:
    """Return the samples of every process that has metrics, labelled as Prometheus does: `job` is the service.

    A process that does not answer is one sample: `up` is 0.
    """
    targets = [one for one in processes if one.metrics]
    if not targets:
        return []
    with ThreadPoolExecutor(len(targets)) as threads:
        return list(chain.from_iterable(threads.map(_scrape, targets)))


def parse(text: str, **labels: str) -> Iterator[Sample]:
    """Yield the samples of a scrape, with more labels."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield Sample(sample.name, {**sample.labels, **labels}, sample.value)


def _scrape(process: ProcessRecord) -> list[Sample]:
    target = {"job": process.name.partition("-")[0], "instance": process.metrics}
    connection = HTTPConnection(process.metrics, timeout=_SECONDS)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except (OSError, HTTPException):
        return [Sample("up", target, 0.0)]
    finally:
        connection.close()
    return [Sample("up", target, 1.0), *parse(text, **target)]


def verified(state: State) -> list[Sample]:
    """Return what `shopmesh verify` found when it last ran, of a file that a node exporter can read as well."""
    try:
        return list(parse(verify_file(state).read_text(encoding="utf-8")))
    except OSError:
        return []


def write_verified(state: State, violations: Mapping[str, int]) -> None:
    """Store the number of rows that violate each invariant."""
    lines = ["# TYPE verify_violations gauge"]
    lines += [f'verify_violations{{check="{check}"}} {count}' for check, count in violations.items()]
    verify_file(state).write_text("\n".join(lines) + "\n", encoding="utf-8")


def verify_file(state: State) -> Path:
    """Return the file with the result of `shopmesh verify`."""
    return state.folder / "verify.prom"
