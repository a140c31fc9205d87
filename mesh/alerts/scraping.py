"""The samples that alerts are evaluated on: gauges as they are, counters by their growth in the last minutes."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from mesh.alerts.expressions import Sample
from mesh.stack.scrapes import Scrape, key
from mesh.stack.state import ProcessRecord, State

#: The ends of the names of counters.
_COUNTERS = ("_total", "_bucket", "_count", "_sum")


def samples(processes: Sequence[ProcessRecord], before: Scrape, now: Scrape) -> list[Sample]:
    """Return the samples of every process that has metrics, labelled as Prometheus does: `job` is the service.

    A counter has grown since the scrape `before`, or since the start of its process. A process that does not answer is
    one sample: `up` is 0.
    """
    found: list[Sample] = []
    for process in processes:
        if not process.metrics:
            continue
        target = {"job": process.name.partition("-")[0], "instance": process.metrics}
        text = now.get(key(process))
        found.append(Sample("up", target, float(text is not None)))
        grown = {_identity(one): one.value for one in parse(before.get(key(process), ""), **target) if _counts(one)}
        found += (
            Sample(one.name, one.labels, one.value - grown.get(_identity(one), 0.0))
            for one in parse(text or "", **target)
        )
    return found


def _counts(sample: Sample) -> bool:
    return sample.name.endswith(_COUNTERS)


def _identity(sample: Sample) -> tuple[str, frozenset[tuple[str, str]]]:
    return sample.name, frozenset(sample.labels.items())


def parse(text: str, **labels: str) -> Iterator[Sample]:
    """Yield the samples of a scrape, with more labels."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            yield Sample(sample.name, {**sample.labels, **labels}, sample.value)


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
