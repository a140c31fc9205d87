"""Update masks: which fields of a resource an update is about (AIP-134)."""

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message


def updated_fields(resource: Message, mask: FieldMask) -> frozenset[str]:
    """Return the names that the mask gives, or without a mask those that the resource sets.

    The contract's rules reject a mask with fields that cannot be updated. Without a mask such fields may be set, as by
    a client that sends back what it has read, and the caller ignores them.
    """
    return frozenset(mask.paths) or frozenset(field.name for field, _ in resource.ListFields())
