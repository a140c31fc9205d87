"""Rules for every route: rate limits, cross-origin requests, conditional requests and caching."""
