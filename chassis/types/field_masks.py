"""Update masks: which fields of a resource an update is about (AIP-134)."""

from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message


def updated_fields(resource: Message, mask: FieldMask) -> frozenset[str]:
    """Return the names that the mask gives, or without a mask those that the resource fills in.

    The contract's rules keep names out of a mask that an update may not touch; without a mask such fields may be
    filled in, as by a client that sends back what it has read, and are for the caller to leave alone.
    """
    return frozenset(mask.paths) or frozenset(field.name for field, _ in resource.ListFields())
