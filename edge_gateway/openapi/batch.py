"""The edge's own operation: several reads in one request."""

from edge_gateway.openapi.constraints import Json
from edge_gateway.settings import MAX_BATCH_READS

TAG: Json = {"name": "Edge", "description": "Operations of the edge itself."}

SCHEMAS: dict[str, Json] = {
    "BatchGetRequest": {
        "type": "object",
        "properties": {
            "requests": {
                "type": "array",
                "minItems": 1,
                "maxItems": MAX_BATCH_READS,
                "items": {
                    "type": "object",
                    "properties": {
                        "path": {
                            "type": "string",
                            "description": "The path of a read, with its query.",
                            "pattern": "^/",
                            "maxLength": 2000,
                        }
                    },
                    "required": ["path"],
                    "additionalProperties": False,
                },
            }
        },
        "required": ["requests"],
        "additionalProperties": False,
    },
    "BatchGetResponse": {
        "type": "object",
        "properties": {
            "responses": {
                "type": "array",
                "description": "The replies, in the order of the requests.",
                "items": {
                    "type": "object",
                    "properties": {
                        "status": {"type": "integer", "description": "The HTTP status of this read."},
                        "etag": {"type": "string", "description": "The ETag of the reply."},
                        "body": {"description": "The reply, or the Status of an error."},
                    },
                    "required": ["status", "body"],
                },
            }
        },
        "required": ["responses"],
    },
}

_FAILURE: Json = {"$ref": "#/components/responses/Failure"}


def operation(example: str) -> Json:
    """Return the path item; `example` is a path to read."""
    return {
        "post": {
            "operationId": "Edge_BatchGet",
            "tags": [TAG["name"]],
            "summary": "Read several paths at once",
            "description": "Each read is served on its own, with the headers of this request, and has its own "
            "status. A read that fails does not fail the others.",
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "schema": {"$ref": "#/components/schemas/BatchGetRequest"},
                        "example": {"requests": [{"path": example}]},
                    }
                },
            },
            "responses": {
                "200": {
                    "description": "The replies.",
                    "content": {"application/json": {"schema": {"$ref": "#/components/schemas/BatchGetResponse"}}},
                },
                "default": _FAILURE,
            },
            "security": [{}, {"bearer": []}],
        }
    }
