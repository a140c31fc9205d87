"""Alerts: one list of rules, as `rules.yaml` for a Prometheus, and evaluated by `shopmesh status` without one."""
