"""The alerts of the mesh. The thresholds of requests, orders and payments are those that the source documents name."""

from collections.abc import Sequence
from dataclasses import dataclass
from json import dumps

from mesh.alerts.expressions import Expression, Gauge, Increase, Labels, Quantile, Sample, Select, Share


@dataclass(frozen=True)
class Alert:
    """A condition that an operator must hear of."""

    name: str
    expression: Expression
    summary: str
    #: How long the condition must hold, in Prometheus; `shopmesh status` reports it at once.
    lasting: str = "1m"


@dataclass(frozen=True, slots=True)
class Firing:
    """An alert that fires, for one group of samples."""

    alert: Alert
    labels: Labels
    value: float


_SERVED = "rpc_server_duration_seconds"
_HTTP = "http_server_duration_seconds"
#: Codes that blame the server; the others blame the request.
_FAULTS = "UNKNOWN|DEADLINE_EXCEEDED|INTERNAL|UNAVAILABLE|DATA_LOSS|RESOURCE_EXHAUSTED|UNIMPLEMENTED"
_CREATE_ORDER = "/shop.order.v1.OrderService/CreateOrder"
_DEDUCTIONS = "/shop.inventory.v1.InventoryService/(ReserveStock|ConfirmReservation|FulfillReservation)"
_JOB = ("job",)


def _faults(method: str = "", *, share: float, least: float) -> Share:
    chosen = {"method": method} if method else {}
    whole = Select(f"{_SERVED}_count", chosen)
    return Share(Select(whole.metric, chosen | {"code": _FAULTS}), whole, _JOB, ">", share, least)


def _payments(kinds: str) -> Select:
    return Select("outbox_events_published_total", {"type": f"shop.payment.v1.({kinds})"})


ALERTS: Sequence[Alert] = (
    Alert("ProcessDown", Gauge(Select("up"), ("job", "instance"), "<", 1), "A process does not answer."),
    Alert("SlowRequestsP95", Quantile(0.95, _SERVED, _JOB, 0.2, 100), "The 95th percentile of calls is above 200 ms."),
    Alert("SlowRequestsP99", Quantile(0.99, _SERVED, _JOB, 0.5, 100), "The 99th percentile of calls is above 500 ms."),
    Alert("RequestErrors", _faults(share=0.01, least=100), "More than 1 % of the calls fail."),
    Alert(
        "EdgeErrors",
        Share(Select(f"{_HTTP}_count", {"status": "5.."}), Select(f"{_HTTP}_count"), _JOB, ">", 0.01, 100),
        "More than 1 % of the JSON requests fail.",
    ),
    Alert(
        "SlowEdgeP95", Quantile(0.95, _HTTP, _JOB, 0.2, 1000), "The 95th percentile of JSON requests is above 200 ms."
    ),
    Alert(
        "SlowEdgeP99", Quantile(0.99, _HTTP, _JOB, 0.5, 1000), "The 99th percentile of JSON requests is above 500 ms."
    ),
    Alert(
        "EdgeStreams",
        Gauge(Select("http_server_streams_open"), _JOB, ">", 2000),
        "An edge has more than 2,000 open streams.",
    ),
    Alert("OrderFailures", _faults(_CREATE_ORDER, share=0.005, least=100), "More than 0.5 % of CreateOrder fails."),
    Alert(
        "PaymentSuccess",
        Share(_payments("PaymentAuthorized"), _payments("PaymentAuthorized|PaymentFailed"), _JOB, "<", 0.98, 50),
        "Less than 98 % of the payments are authorized.",
    ),
    Alert(
        "StockDeductionFails",
        Increase(Select(f"{_SERVED}_count", {"method": _DEDUCTIONS, "code": "INTERNAL|UNKNOWN|DATA_LOSS"}), _JOB),
        "A deduction of stock failed for a reason that is not the request's.",
    ),
    Alert(
        "StockOversold",
        Gauge(Select("stock_oversold_units"), ("job", "location_id"), ">", 0),
        "More is promised than is on hand.",
    ),
    Alert("HoldsOverdue", Gauge(Select("stock_holds_overdue"), _JOB, ">", 0), "Holds of stock do not expire.", "5m"),
    Alert(
        "OutboxLag", Gauge(Select("outbox_lag_seconds"), _JOB, ">", 30), "Events wait more than 30 s to be published."
    ),
    Alert(
        "OutboxBacklog",
        Gauge(Select("outbox_unpublished_events"), _JOB, ">", 10_000),
        "More than 10,000 events wait to be published.",
    ),
    Alert("RelayWithoutLeader", Gauge(Select("outbox_relay_leader"), _JOB, "<", 1), "No process publishes the outbox."),
    Alert(
        "ConsumerLag",
        Gauge(Select("consumer_lag_seconds"), _JOB, ">", 60),
        "A received event has waited for more than a minute.",
    ),
    Alert(
        "LateEvents",
        Quantile(0.95, "consumer_event_age_seconds", _JOB, 60, 20),
        "Events are applied more than a minute after they were published.",
    ),
    Alert("DeadLetters", Gauge(Select("dead_letters"), _JOB, ">", 0), "Events could not be applied."),
    Alert("SagasParked", Gauge(Select("sagas_parked"), ("job", "reason"), ">", 0), "Sagas wait for an operator."),
    Alert(
        "SagasStuck",
        Gauge(Select("saga_oldest_seconds"), ("job", "state", "step"), ">", 600),
        "A saga has been at its step for 10 minutes.",
    ),
    Alert(
        "OrdersStuck",
        Gauge(Select("orders_oldest_seconds"), ("job", "state"), ">", 1800),
        "An order has been pending for half an hour.",
    ),
    Alert(
        "PoolExhausted",
        Increase(Select("db_pool_timeouts_total"), _JOB),
        "Calls were rejected because no connection became free.",
    ),
    Alert(
        "LaneConflicts",
        Share(Select("lane_conflicts_total"), Select("lane_batch_size_count"), _JOB, ">", 0.5, 100),
        "Half of the batches of the write lane are repeated.",
    ),
    Alert(
        "BackgroundWorkWaits",
        Gauge(Select("background_work_waiting"), ("job", "work", "reason"), ">", 0),
        "Background work cannot proceed.",
    ),
    Alert(
        "BreakerOpen",
        Gauge(Select("external_breaker_open"), ("job", "api"), ">", 0),
        "An external API is not called, because it fails.",
    ),
    Alert(
        "EventLoopLag", Quantile(0.99, "event_loop_lag_seconds", _JOB, 0.25, 100), "Timers run more than 250 ms late."
    ),
    Alert(
        "GaugesUnread", Increase(Select("metrics_unread_gauges_total"), ("job", "gauge"), 2), "A metric cannot be read."
    ),
    Alert(
        "InvariantViolated",
        Gauge(Select("verify_violations"), ("check",), ">", 0),
        "`shopmesh verify` found rows that violate an invariant.",
        "0m",
    ),
)


def firing(samples: Sequence[Sample]) -> list[Firing]:
    """Return the alerts whose conditions the samples meet."""
    return [
        Firing(alert, labels, value)
        for alert in ALERTS
        for labels, value in sorted(alert.expression.breaches(samples).items())
    ]


def render() -> str:
    """Return the alerts as a rules file of Prometheus. `job` is the name of the service in its scrape configuration."""
    lines = [
        "# Generated by `python -m mesh.alerts` from mesh/alerts/rules.py.",
        "groups:",
        "  - name: shopmesh",
        "    rules:",
    ]
    for alert in ALERTS:
        lines += [
            f"      - alert: {alert.name}",
            f"        expr: {dumps(alert.expression.promql())}",
            f"        for: {alert.lasting}",
            "        labels: {severity: page}",
            f"        annotations: {{summary: {dumps(alert.summary)}}}",
        ]
    return "\n".join(lines) + "\n"
