"""Events between services: the outbox, the two buses, and consumers with an inbox."""
