"""Durable background work: jobs in a service's own tables, executed under a lease and resumed after a crash."""
