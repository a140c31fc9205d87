"""Gauges of a service's events, each with its description and the query that reads it."""

#: Each reads a bounded number of index entries.
EVENT_GAUGES = (
    (
        "outbox_unpublished_events",
        "Events that are not yet published, at most 100,000.",
        "SELECT count(*) FROM (SELECT FROM outbox WHERE publish_time IS NULL LIMIT 100000) AS unpublished",
    ),
    (
        "outbox_lag_seconds",
        "Age of the oldest event that is not yet published.",
        "SELECT extract(epoch FROM now() - create_time) FROM outbox WHERE publish_time IS NULL ORDER BY id LIMIT 1",
    ),
    (
        "dead_letters",
        "Events that could not be applied and were not redriven, at most 10,000.",
        "SELECT count(*) FROM (SELECT FROM dead_letter WHERE redrive_time IS NULL LIMIT 10000) AS dead",
    ),
)
