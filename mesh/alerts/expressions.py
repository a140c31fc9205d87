"""The few forms of condition that alerts have: each as PromQL, and evaluated on scraped samples."""

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a metric."""

    name: str
    labels: Mapping[str, str]
    value: float


class Expression(Protocol):
    """A condition that an alert fires on."""

    def promql(self) -> str:
        """Return the condition as PromQL."""
        ...

    def breaches(self, samples: Sequence[Sample]) -> dict[Labels, float]:
        """Return the value of each group that meets the condition; a counter is what it has grown by in the window."""
        ...


@dataclass(frozen=True)
class Select:
    """The samples of a metric whose labels match regular expressions."""

    metric: str
    matching: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Return the selector as PromQL."""
        return self.metric + (
            f"{{{','.join(f'{k}=~{_quoted(v)}' for k, v in self.matching.items())}}}" * bool(self.matching)
        )

    def grouped(self, samples: Sequence[Sample], by: Sequence[str]) -> dict[Labels, list[Sample]]:
        """Return the samples by the values of the labels `by`."""
        groups: defaultdict[Labels, list[Sample]] = defaultdict(list)
        for sample in samples:
            if sample.name == self.metric and all(
                re.fullmatch(pattern, sample.labels.get(label, "")) for label, pattern in self.matching.items()
            ):
                groups[tuple((label, sample.labels[label]) for label in by if label in sample.labels)].append(sample)
        return groups

    def sums(self, samples: Sequence[Sample], by: Sequence[str]) -> dict[Labels, float]:
        """Return the sum of each group."""
        return {group: sum(one.value for one in found) for group, found in self.grouped(samples, by).items()}


@dataclass(frozen=True)
class Gauge:
    """The largest, smallest or summed value of a gauge is beyond a limit."""

    select: Select
    by: Sequence[str]
    operator: Literal[">", "<"]
    limit: float
    combine: Literal["max", "sum"] = "max"

    def promql(self) -> str:
        """Return the condition as PromQL."""
        return f"{self.combine} by ({', '.join(self.by)}) ({self.select}) {self.operator} {self.limit:g}"

    def breaches(self, samples: Sequence[Sample]) -> dict[Labels, float]:
        """Return the value of each group beyond the limit."""
        combine: Callable[..., float] = max if self.combine == "max" else sum
        groups = self.select.grouped(samples, self.by)
        return _beyond(
            {group: combine(one.value for one in of) for group, of in groups.items()}, self.operator, self.limit
        )


@dataclass(frozen=True)
class Increase:
    """A counter has grown by more than a limit."""

    select: Select
    by: Sequence[str]
    limit: float = 0
    window: str = "10m"

    def promql(self) -> str:
        """Return the condition as PromQL."""
        return f"sum by ({', '.join(self.by)}) (increase({self.select}[{self.window}])) > {self.limit:g}"

    def breaches(self, samples: Sequence[Sample]) -> dict[Labels, float]:
        """Return the growth of each group beyond the limit."""
        return _beyond(self.select.sums(samples, self.by), ">", self.limit)


@dataclass(frozen=True)
class Share:
    """The share of a counter in another one is beyond a limit, where the other one has grown by `least`."""

    part: Select
    whole: Select
    by: Sequence[str]
    operator: Literal[">", "<"]
    limit: float
    least: float
    window: str = "10m"

    def promql(self) -> str:
        """Return the condition as PromQL."""
        part, whole = (
            f"sum by ({', '.join(self.by)}) (increase({one}[{self.window}]))" for one in (self.part, self.whole)
        )
        # `or` counts a part that does not exist as none.
        return f"(({part}) or ({whole}) * 0) / ({whole}) {self.operator} {self.limit:g} and {whole} >= {self.least:g}"

    def breaches(self, samples: Sequence[Sample]) -> dict[Labels, float]:
        """Return the share of each group beyond the limit."""
        parts, wholes = self.part.sums(samples, self.by), self.whole.sums(samples, self.by)
        shares = {group: parts.get(group, 0.0) / whole for group, whole in wholes.items() if whole >= self.least}
        return _beyond(shares, self.operator, self.limit)


@dataclass(frozen=True)
class Quantile:
    """A quantile of a histogram is above a limit, where it has counted `least` values."""

    quantile: float
    histogram: str
    by: Sequence[str]
    limit: float
    least: float
    window: str = "10m"

    def promql(self) -> str:
        """Return the condition as PromQL."""
        by, bucket = ", ".join(self.by), f"{self.histogram}_bucket[{self.window}]"
        quantile = f"histogram_quantile({self.quantile:g}, sum by ({by}, le) (rate({bucket})))"
        count = f"sum by ({by}) (increase({self.histogram}_count[{self.window}]))"
        return f"{quantile} > {self.limit:g} and {count} >= {self.least:g}"

    def breaches(self, samples: Sequence[Sample]) -> dict[Labels, float]:
        """Return the quantile of each group above the limit, interpolated as Prometheus does."""
        buckets = Select(f"{self.histogram}_bucket").grouped(samples, self.by)
        counts = Select(f"{self.histogram}_count").sums(samples, self.by)
        found = {
            group: _quantile(self.quantile, of) for group, of in buckets.items() if counts.get(group, 0) >= self.least
        }
        return _beyond(found, ">", self.limit)


def _quantile(quantile: float, samples: Sequence[Sample]) -> float:
    counts: defaultdict[float, float] = defaultdict(float)
    for sample in samples:
        counts[float(sample.labels["le"])] += sample.value
    rank = quantile * max(counts.values())
    below, lower = 0.0, 0.0
    for bound, count in sorted(counts.items()):
        if count >= rank:
            if bound == float("inf"):
                return lower
            return lower + (bound - lower) * (rank - below) / (count - below)
        below, lower = count, bound
    return lower


def _beyond(values: Mapping[Labels, float], operator: str, limit: float) -> dict[Labels, float]:
    return {group: value for group, value in values.items() if (value > limit if operator == ">" else value < limit)}


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
