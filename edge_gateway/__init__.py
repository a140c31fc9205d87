"""A gRPC-to-JSON gateway: give it descriptors and upstreams, and it serves their google.api.http routes."""
