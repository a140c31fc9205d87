"""A gRPC-to-JSON gateway: serves the google.api.http routes of a descriptor set from its upstreams."""
