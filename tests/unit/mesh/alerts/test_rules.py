"""Each alert fires on its planted trouble, and none on the metrics of a healthy mesh; Prometheus agrees."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from mesh.alerts.expressions import Sample
from mesh.alerts.rules import ALERTS, firing, render

CREATE_ORDER = "/shop.order.v1.OrderService/CreateOrder"
RESERVE = "/shop.inventory.v1.InventoryService/ReserveStock"
BOUNDS = ("0.1", "0.2", "0.5", "1", "60", "300", "+Inf")


def histogram(name, job, counts, **labels):
    """The samples of a histogram: `counts` of values in each bucket of BOUNDS."""
    sums = [sum(counts[: number + 1]) for number in range(len(counts))]
    buckets = {(f"{name}_bucket", (("le", bound),)): count for bound, count in zip(BOUNDS, sums, strict=True)}
    return {
        (metric, tuple(sorted({"job": job, **labels, **dict(le)}.items()))): float(count)
        for (metric, le), count in {**buckets, (f"{name}_count", ()): sums[-1]}.items()
    }


def one(name, value, **labels):
    return {(name, tuple(sorted(labels.items()))): float(value)}


def published(kind, count):
    return one("outbox_events_published_total", count, job="svc_payment", type=f"shop.payment.v1.{kind}")


SERVED = "rpc_server_duration_seconds"
HTTP = "http_server_duration_seconds"
HEALTHY = {
    **one("up", 1, job="svc_order", instance="a"),
    **one("up", 1, job="svc_order", instance="b"),
    **histogram(SERVED, "svc_order", (970, 20, 5, 0, 0, 0, 0), method=CREATE_ORDER, code="OK"),
    **histogram(SERVED, "svc_order", (2, 0, 0, 0, 0, 0, 0), method=CREATE_ORDER, code="INTERNAL"),
    **histogram(SERVED, "svc_order", (100, 0, 0, 0, 0, 0, 0), method=CREATE_ORDER, code="FAILED_PRECONDITION"),
    **histogram(SERVED, "svc_inventory", (990, 0, 0, 0, 0, 0, 0), method=RESERVE, code="OK"),
    **histogram(SERVED, "svc_inventory", (5, 0, 0, 0, 0, 0, 0), method=RESERVE, code="FAILED_PRECONDITION"),
    **histogram(HTTP, "edge_gateway", (970, 20, 5, 0, 0, 0, 0), method=CREATE_ORDER, status="200"),
    **histogram(HTTP, "edge_gateway", (5, 0, 0, 0, 0, 0, 0), method=CREATE_ORDER, status="503"),
    **histogram(HTTP, "edge_gateway", (100, 0, 0, 0, 0, 0, 0), method=CREATE_ORDER, status="400"),
    **one("http_server_streams_open", 40, job="edge_gateway"),
    **published("PaymentAuthorized", 990),
    **published("PaymentFailed", 10),
    **one("stock_holds_overdue", 0, job="svc_inventory"),
    **one("outbox_lag_seconds", 0.1, job="svc_order"),
    **one("outbox_unpublished_events", 40, job="svc_order"),
    **one("outbox_relay_leader", 1, job="svc_order", instance="a"),
    **one("outbox_relay_leader", 0, job="svc_order", instance="b"),
    **one("consumer_lag_seconds", 0.2, job="svc_order"),
    **histogram("consumer_event_age_seconds", "svc_order", (900, 80, 0, 0, 0, 0, 0)),
    **one("dead_letters", 0, job="svc_order"),
    **one("saga_oldest_seconds", 2, job="svc_order", state="RUNNING", step="reserve_stock"),
    **one("orders_oldest_seconds", 2, job="svc_order", state="PENDING"),
    **one("db_pool_timeouts_total", 0, job="svc_order"),
    **one("lane_conflicts_total", 10, job="svc_inventory"),
    **one("lane_batch_size_count", 1000, job="svc_inventory"),
    **one("external_breaker_open", 0, job="svc_payment", api="payment_provider"),
    **histogram("event_loop_lag_seconds", "svc_order", (1000, 0, 0, 0, 0, 0, 0)),
    **one("verify_violations", 0, check="svc_order/no_dead_letters"),
}
TROUBLES = {
    "ProcessDown": one("up", 0, job="svc_order", instance="b"),
    "SlowRequestsP95": histogram(SERVED, "svc_order", (900, 0, 100, 0, 0, 0, 0), method=CREATE_ORDER, code="OK"),
    "SlowRequestsP99": histogram(SERVED, "svc_order", (970, 0, 0, 30, 0, 0, 0), method=CREATE_ORDER, code="OK"),
    "RequestErrors": histogram(SERVED, "svc_inventory", (20, 0, 0, 0, 0, 0, 0), method=RESERVE, code="UNAVAILABLE"),
    "EdgeErrors": histogram(HTTP, "edge_gateway", (20, 0, 0, 0, 0, 0, 0), method=CREATE_ORDER, status="503"),
    "SlowEdgeP95": histogram(HTTP, "edge_gateway", (900, 0, 100, 0, 0, 0, 0), method=CREATE_ORDER, status="200"),
    "SlowEdgeP99": histogram(HTTP, "edge_gateway", (970, 0, 0, 30, 0, 0, 0), method=CREATE_ORDER, status="200"),
    "EdgeStreams": one("http_server_streams_open", 2001, job="edge_gateway"),
    "OrderFailures": histogram(SERVED, "svc_order", (7, 0, 0, 0, 0, 0, 0), method=CREATE_ORDER, code="UNAVAILABLE"),
    "PaymentSuccess": published("PaymentFailed", 30),
    "StockDeductionFails": histogram(SERVED, "svc_inventory", (5, 0, 0, 0, 0, 0, 0), method=RESERVE, code="INTERNAL"),
    "StockOversold": one("stock_oversold_units", 3, job="svc_inventory", location_id="main"),
    "HoldsOverdue": one("stock_holds_overdue", 1, job="svc_inventory"),
    "OutboxLag": one("outbox_lag_seconds", 31, job="svc_order"),
    "OutboxBacklog": one("outbox_unpublished_events", 10_001, job="svc_order"),
    "RelayWithoutLeader": one("outbox_relay_leader", 0, job="svc_order", instance="a"),
    "ConsumerLag": one("consumer_lag_seconds", 61, job="svc_order"),
    "LateEvents": histogram("consumer_event_age_seconds", "svc_order", (900, 0, 0, 0, 0, 100, 0)),
    "DeadLetters": one("dead_letters", 1, job="svc_order"),
    "SagasParked": one("sagas_parked", 1, job="svc_order", reason="CAPTURE_REFUSED"),
    "SagasStuck": one("saga_oldest_seconds", 601, job="svc_order", state="RUNNING", step="reserve_stock"),
    "OrdersStuck": one("orders_oldest_seconds", 1801, job="svc_order", state="PENDING"),
    "PoolExhausted": one("db_pool_timeouts_total", 5, job="svc_order"),
    "LaneConflicts": one("lane_conflicts_total", 600, job="svc_inventory"),
    "BackgroundWorkWaits": one("background_work_waiting", 1, job="svc_order", work="outbox", reason="OSError"),
    "BreakerOpen": one("external_breaker_open", 1, job="svc_payment", api="payment_provider"),
    "EventLoopLag": histogram("event_loop_lag_seconds", "svc_order", (900, 0, 50, 50, 0, 0, 0)),
    "GaugesUnread": one("metrics_unread_gauges_total", 5, job="svc_order", gauge="dead_letters"),
    "InvariantViolated": one("verify_violations", 2, check="svc_order/no_dead_letters"),
}
#: Troubles that are so great that they are another's as well.
IMPLIED = {
    "SlowRequestsP99": {"SlowRequestsP95"},
    "SlowRequestsP95": {"SlowRequestsP99"},
    "SlowEdgeP99": {"SlowEdgeP95"},
    "SlowEdgeP95": {"SlowEdgeP99"},
    "OrderFailures": set(),
}
promtool = shutil.which("promtool")


def fired(values):
    return firing([Sample(name, dict(labels), value) for (name, labels), value in values.items()])


def test_no_alert_fires_on_a_healthy_mesh_or_without_any_metric():
    assert fired(HEALTHY) == []
    assert fired({}) == []


def test_every_alert_has_a_planted_trouble():
    assert [alert.name for alert in ALERTS] == list(TROUBLES)


@pytest.mark.parametrize("name", TROUBLES)
def test_a_planted_trouble_fires_its_alert_and_no_other(name):
    found = {one.alert.name for one in fired(HEALTHY | TROUBLES[name])}
    assert name in found
    assert found <= {name} | IMPLIED.get(name, set())


def test_the_rules_file_is_what_the_alerts_render():
    file = Path(__file__).parents[4] / "mesh" / "alerts" / "rules.yaml"
    assert file.read_text() == render(), "run `python -m mesh.alerts`"


def series(values):
    """The samples as series of promtool: a value each minute; counters grow so that ten minutes make the value."""
    return [
        {
            "series": name + "{" + ",".join(f'{label}="{text}"' for label, text in labels) + "}",
            "values": f"0+{value / 10:g}x30" if name.endswith(("_total", "_bucket", "_count")) else f"{value:g}x30",
        }
        for (name, labels), value in values.items()
    ]


@pytest.mark.skipif(promtool is None, reason="promtool is not installed (Debian: prometheus)")
def test_prometheus_fires_the_same_alerts_with_the_same_labels(tmp_path):
    (tmp_path / "rules.yaml").write_text(render())
    tests = []
    for trouble in ({}, *TROUBLES.values()):
        values = HEALTHY | trouble
        by_alert = {alert.name: [] for alert in ALERTS}
        for one in fired(values):
            expected = {"severity": "page", **dict(one.labels)}
            by_alert[one.alert.name].append({"exp_labels": expected, "exp_annotations": {"summary": one.alert.summary}})
        tests.append(
            {
                "interval": "1m",
                "input_series": series(values),
                "alert_rule_test": [
                    {"eval_time": "25m", "alertname": name, "exp_alerts": alerts} for name, alerts in by_alert.items()
                ],
            }
        )
    # JSON is YAML.
    (tmp_path / "test.yaml").write_text(json.dumps({"rule_files": ["rules.yaml"], "tests": tests}))
    done = subprocess.run(
        [promtool, "test", "rules", tmp_path / "test.yaml"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
