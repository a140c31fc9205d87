"""Update masks: the fields that an update changes."""

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from chassis.types.field_masks import updated_fields
from shop.user.v1.user_service_pb2 import User


@pytest.mark.parametrize(
    ("user", "paths", "fields"),
    [
        (User(phone="1", display_name="Ann"), ["phone"], {"phone"}),
        (User(display_name="Ann"), ["phone"], {"phone"}),
        (User(phone="1", roles=["admin"]), [], {"phone", "roles"}),
        (User(), [], set()),
    ],
    ids=["a mask names them", "a mask clears what is empty", "no mask: what is filled in", "nothing at all"],
)
def test_an_update_changes_the_masked_or_set_fields(user, paths, fields):
    assert updated_fields(user, FieldMask(paths=paths)) == fields
