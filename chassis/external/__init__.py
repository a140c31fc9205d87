"""External HTTP APIs: calls to them, and the webhooks that they send."""
