"""The rules of buf.validate, applied to a request."""

from typing import Any

from google.protobuf.message import Message
from google.rpc import error_details_pb2
from protovalidate import Validator

from chassis.errors import status_of
from shop.chassis.v1 import chassis_errors

#: A status reports no more violations of one request than fit into metadata: see chassis.errors.
_VIOLATIONS_BYTES = 1_500
#: Of a larger request only the first violation is found.
_THOROUGH_BYTES = 16_384

_validator = Validator()


def validate(request: Message) -> None:
    """Raise Invalid when the request breaks a rule."""
    # The rules of a long list would be checked, and reported, item by item.
    if violations := _validator.collect_violations(request, fail_fast=request.ByteSize() > _THOROUGH_BYTES):
        raise Invalid(violations)


class Invalid(Exception):
    """The request breaks buf.validate rules."""

    def __init__(self, violations: list[Any]) -> None:
        super().__init__()
        fields = [
            error_details_pb2.BadRequest.FieldViolation(
                field=_path(violation.proto.field),
                description=violation.proto.message or f"breaks the rule {violation.proto.rule_id}",
                reason=violation.proto.rule_id.upper().replace(".", "_"),
            )
            for violation in violations
        ]
        reported = error_details_pb2.BadRequest()
        for field in fields:
            reported.field_violations.append(field)
            if reported.ByteSize() > _VIOLATIONS_BYTES:
                del reported.field_violations[-1]
                break
        first = fields[0]
        error = chassis_errors.InvalidRequest(field=first.field or "request", problem=first.description)
        self.status = status_of(error, [reported])


def _path(field: Any) -> str:
    """Return a violation's place as the JSON edge writes paths: `lines[0].quantity`."""
    parts = []
    for element in field.elements if field else ():
        subscript = element.subscript
        suffix = "" if subscript is None else f"[{subscript.value}]"
        parts.append(element.field_name + suffix)
    return ".".join(parts)
