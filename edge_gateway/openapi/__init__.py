"""OpenAPI 3.1 from descriptors: `document` for a running edge, `python -m edge_gateway.openapi` for a file."""

from edge_gateway.openapi.document import document

__all__ = ["document"]
