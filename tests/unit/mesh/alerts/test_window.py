"""Alerts are about the last ten minutes: what a counter had before does not fire any."""

from mesh.alerts.rules import firing
from mesh.alerts.scraping import samples
from mesh.stack.scrapes import WINDOW, Scrapes, key
from mesh.stack.state import ProcessRecord

PROCESS = ProcessRecord(name="svc_order", pid=7, metrics="127.0.0.1:1")
RESTARTED = ProcessRecord(name="svc_order", pid=8, metrics="127.0.0.1:1")


def metrics(timeouts, lag=0):
    return (
        f"# TYPE db_pool_timeouts_total counter\ndb_pool_timeouts_total {timeouts}\n"
        f"# TYPE outbox_lag_seconds gauge\noutbox_lag_seconds {lag}\n"
    )


def fired(process, before, now):
    return [one.alert.name for one in firing(samples([process], before, now))]


def test_a_counter_fires_by_what_it_has_grown_by_since_the_scrape_before():
    before = {key(PROCESS): metrics(5)}
    assert fired(PROCESS, {}, before) == ["PoolExhausted"]
    assert fired(PROCESS, before, before) == []
    assert fired(PROCESS, before, {key(PROCESS): metrics(6)}) == ["PoolExhausted"]


def test_the_counters_of_a_restarted_process_begin_at_0():
    assert fired(RESTARTED, {key(PROCESS): metrics(5)}, {key(RESTARTED): metrics(5)}) == ["PoolExhausted"]


def test_a_gauge_fires_by_its_value():
    lagging = {key(PROCESS): metrics(0, lag=31)}
    assert fired(PROCESS, lagging, lagging) == ["OutboxLag"]


def test_a_process_without_an_answer_is_down():
    assert fired(PROCESS, {key(PROCESS): metrics(0)}, {}) == ["ProcessDown"]


def test_scrapes_are_stored_for_the_window(tmp_path):
    scrapes = Scrapes(tmp_path / "scrapes")
    assert scrapes.oldest(1000) == {}
    for now in (1000, 1300, 1500):
        scrapes.add({"at": str(now)}, now)
    assert scrapes.oldest(1600) == {"at": "1000"}
    assert scrapes.oldest(1001 + WINDOW) == {"at": "1300"}
    scrapes.add({"at": "later"}, 1001 + WINDOW)
    assert len(list((tmp_path / "scrapes").iterdir())) == 3
    scrapes.clear()
    assert scrapes.oldest(1000) == {}
