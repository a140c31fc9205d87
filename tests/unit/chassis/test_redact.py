"""No sensitive value of any message reaches the log, at any depth, and any message can be logged."""

import importlib
import json
from pathlib import Path

import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.protobuf.message_factory import GetMessageClass

from chassis.rpc.redact import redacted
from shop.inventory.v1 import inventory_service_pb2 as inventory
from shop.options.v1 import options_pb2
from shop.order.v1 import order_service_pb2 as order
from shop.type.v1 import address_pb2
from shop.user.v1 import auth_service_pb2 as auth
from shop.user.v1 import user_service_pb2 as user

CANARY = "canary-7f3a"


def message_types():
    image = FileDescriptorSet.FromString((Path(options_pb2.__file__).parents[2] / "shop.binpb").read_bytes())
    for file in image.file:
        if file.package.startswith("shop."):
            module = importlib.import_module(file.name.removesuffix(".proto").replace("/", ".") + "_pb2")
            yield from module.DESCRIPTOR.message_types_by_name.values()


MESSAGE_TYPES = list(message_types())


def filled(descriptor, depth=0):
    """A message with the canary in every sensitive text, and something in every field that leads to one."""
    message = GetMessageClass(descriptor)()
    for field in descriptor.fields:
        sensitive = field.GetOptions().Extensions[options_pb2.sensitive]
        if field.message_type is not None:
            if field.message_type.GetOptions().map_entry or depth > 6:
                continue
            if field.message_type.full_name.startswith("shop."):
                inner = filled(field.message_type, depth + 1)
                many = getattr(message, field.name) if field.is_repeated else None
                many.append(inner) if many is not None else getattr(message, field.name).CopyFrom(inner)
        elif sensitive and field.type in (FieldDescriptor.TYPE_STRING, FieldDescriptor.TYPE_BYTES):
            value = CANARY if field.type == FieldDescriptor.TYPE_STRING else CANARY.encode()
            if field.is_repeated:
                getattr(message, field.name).append(value)
            elif field.containing_oneof is None or message.WhichOneof(field.containing_oneof.name) is None:
                setattr(message, field.name, value)
    return message


@pytest.mark.parametrize("descriptor", MESSAGE_TYPES, ids=lambda descriptor: descriptor.full_name)
def test_no_sensitive_value_of_any_message_remains(descriptor):
    assert CANARY not in json.dumps(redacted(filled(descriptor)))


def test_the_messages_contain_the_canaries():
    register = filled(user.RegisterRequest.DESCRIPTOR)
    assert register.password == CANARY
    assert redacted(register)["password"] == "***"
    address = filled(address_pb2.Address.DESCRIPTOR)
    assert CANARY in str(address)


def test_values_that_are_not_sensitive_remain():
    request = inventory.ReserveStockRequest(order_id="o-1", lines=[inventory.StockLine(sku="a", quantity=2)])
    assert redacted(request) == {"order_id": "o-1", "lines": [{"sku": "a", "quantity": 2}]}


def test_an_empty_sensitive_field_stays_absent():
    assert redacted(user.RegisterRequest()) == {}


def test_of_an_opaque_body_only_the_size_is_logged():
    """Webhooks: an external API's body may contain a customer's address."""
    body = HttpBody(content_type="application/json", data=CANARY.encode())
    assert redacted(body) == {"content_type": "application/json", "data": f"{len(CANARY)} bytes"}


@pytest.mark.parametrize("seconds", [10**18, -(10**18)])
def test_a_message_without_a_json_form_is_named(seconds):
    request = inventory.ReserveStockRequest(order_id="o-1")
    request.ttl.seconds = seconds
    assert redacted(request) == {"unprintable": "shop.inventory.v1.ReserveStockRequest"}


def test_values_of_a_map_are_redacted():
    file = FileDescriptorProto(name="toy/map.proto", package="shop.toy", syntax="proto3")
    file.dependency.append("shop/type/v1/address.proto")
    book = file.message_type.add(name="Book")
    entry = book.nested_type.add(name="PlacesEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=9, label=1)
    entry.field.add(name="value", number=2, type=11, label=1, type_name=".shop.type.v1.Address")
    book.field.add(name="places", number=1, type=11, label=3, type_name=".shop.toy.Book.PlacesEntry")
    pool = descriptor_pool.Default()
    pool.Add(file)
    message = GetMessageClass(pool.FindMessageTypeByName("shop.toy.Book"))()
    message.places["home"].CopyFrom(filled(address_pb2.Address.DESCRIPTOR))
    assert "home" in redacted(message)["places"]
    assert CANARY not in json.dumps(redacted(message))


@pytest.mark.parametrize(
    "request_",
    [
        inventory.BatchGetStockRequest(skus=[f"!{number:049}" for number in range(5_000)]),
        inventory.BatchGetStockRequest(skus=[""] * 900),  # small on the wire, large as JSON
        auth.LoginRequest(email="a" * 100_000, password=CANARY * 1_000),
    ],
)
def test_of_a_large_message_an_outline_is_logged(request_):
    text = json.dumps(redacted(request_))
    assert len(text) <= 2_000
    assert f'"bytes": {request_.ByteSize()}' in text
    assert CANARY not in text


def test_addresses_and_free_text_of_customers_are_masked():
    address = address_pb2.Address(city="Bangkok", region="Phuket", postal_code="10500", country_code="TH")
    assert redacted(address) == {"city": "***", "region": "***", "postal_code": "***", "country_code": "TH"}
    cancel = order.CancelOrderRequest(order_id="o", reason="my husband must not know")
    assert redacted(cancel) == {"order_id": "o", "reason": "***"}
