"""The contract is whole: every RPC says who may call it and for how long, and no request can be without bounds."""

import importlib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from google.api.annotations_pb2 import http
from google.api.field_behavior_pb2 import OUTPUT_ONLY, field_behavior
from google.api.httpbody_pb2 import HttpBody
from google.protobuf import descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from buf.validate import validate_pb2
from mesh.services import SERVICES, workload
from shop.contract import ANY_WORKLOAD, EDGE, RPCS, Access, IdempotencyLevel, Rpc
from shop.options.v1 import rules_pb2
from shop.services import SERVICES as CONTRACT
from shop.user.v1 import user_service_pb2

ROOT = Path(__file__).parents[2]
for _service in CONTRACT.values():
    assert _service.servicer_class, "importing it adds its messages to the pool"

POOL = descriptor_pool.Default()
WORKLOADS = {EDGE, ANY_WORKLOAD, *SERVICES}
#: Every workload may call these: reviewed here, so that no other method opts in unseen.
#: Changes whose repeat is harmless, or new, without a request_id: an id of the request or the token is the key.
WITH_NATURAL_KEY = {
    "shop.delivery.v1.DeliveryService/BookSlot",
    "shop.delivery.v1.DeliveryService/ReleaseSlot",
    "shop.delivery.v1.ShipmentService/CancelShipment",
    "shop.delivery.v1.ShipmentService/CreateShipment",
    "shop.inventory.v1.InventoryService/ConfirmReservation",
    "shop.inventory.v1.InventoryService/ExtendReservation",
    "shop.inventory.v1.InventoryService/FulfillReservation",
    "shop.inventory.v1.InventoryService/ReduceReservation",
    "shop.inventory.v1.InventoryService/ReleaseReservation",
    "shop.inventory.v1.InventoryService/ReserveStock",
    "shop.user.v1.AuthService/ChangePassword",
    "shop.user.v1.AuthService/Login",
    "shop.user.v1.AuthService/Logout",
    "shop.user.v1.AuthService/RefreshToken",
    "shop.user.v1.AuthService/RequestPasswordReset",
    "shop.user.v1.AuthService/ResetPassword",
}
FOR_ANY_WORKLOAD = {"/shop.user.v1.AuthService/GetJwks", "/shop.user.v1.AuthService/WatchRevocations"}
#: What svc_user can give to a user.
_ROLES_FIELD = user_service_pb2.SetUserRolesRequest.DESCRIPTOR.fields_by_name["roles"]
ROLES = set(getattr(_ROLES_FIELD.GetOptions().Extensions[validate_pb2.field].repeated.items.string, "in"))

every_rpc = pytest.mark.parametrize("rpc", RPCS.values(), ids=RPCS)


def changes(rpc: Rpc) -> bool:
    return rpc.idempotency_level is not IdempotencyLevel.NO_SIDE_EFFECTS


def is_webhook(rpc: Rpc) -> bool:
    return rpc.request_type == HttpBody.DESCRIPTOR.full_name


def route(rpc: Rpc) -> str | None:
    """The HTTP method of its route, or None."""
    options = POOL.FindMethodByName(f"{rpc.service}.{rpc.method}").GetOptions()
    return options.Extensions[http].WhichOneof("pattern") if options.HasExtension(http) else None


def test_there_are_rpcs_of_every_service() -> None:
    assert {workload(rpc.service) for rpc in RPCS.values()} == set(SERVICES)


@every_rpc
def test_its_callers_are_named_and_known(rpc: Rpc) -> None:
    assert rpc.callers
    assert set(rpc.callers) <= WORKLOADS


def test_only_the_reviewed_methods_admit_every_workload() -> None:
    assert {path for path, rpc in RPCS.items() if ANY_WORKLOAD in rpc.callers} == FOR_ANY_WORKLOAD


@pytest.mark.parametrize("workload", [EDGE, *SERVICES])
def test_every_workload_may_fetch_the_token_keys(workload: str) -> None:
    assert RPCS["/shop.user.v1.AuthService/GetJwks"].admits(workload)


@every_rpc
def test_its_roles_are_known_and_belong_to_an_access_by_roles_or_owner(rpc: Rpc) -> None:
    assert set(rpc.roles) <= ROLES - {"customer"}
    if rpc.access is not Access.OWNER:  # roles beside the owner are optional
        assert bool(rpc.roles) == (rpc.access is Access.ROLES)


@every_rpc
def test_what_only_workloads_may_call_has_no_way_in_from_outside(rpc: Rpc) -> None:
    if rpc.access is Access.WORKLOAD:
        assert "edge" not in rpc.callers
    assert (route(rpc) is not None) == rpc.has_http
    if rpc.has_http:
        assert "edge" in rpc.callers


@every_rpc
def test_a_change_has_a_request_id_unless_a_natural_key_was_reviewed(rpc: Rpc) -> None:
    natural = f"{rpc.service}/{rpc.method}" in WITH_NATURAL_KEY
    assert rpc.has_request_id == (changes(rpc) and not is_webhook(rpc) and not natural)


@every_rpc
def test_a_read_is_a_get_and_a_change_is_none(rpc: Rpc) -> None:
    """Proxies and browsers repeat a GET as they like."""
    if route(rpc) == "get":
        assert not changes(rpc)
    elif route(rpc) is not None and not changes(rpc):
        assert route(rpc) == "post", "a question too large for an address"


@every_rpc
def test_its_time_is_bounded_unless_it_streams(rpc: Rpc) -> None:
    if rpc.server_streaming:
        assert rpc.timeout is None
        assert not changes(rpc)
    else:
        assert rpc.timeout is not None
        assert 0 < rpc.timeout <= 15


@every_rpc
def test_a_change_that_anyone_may_make_is_limited(rpc: Rpc) -> None:
    if rpc.access is Access.PUBLIC and changes(rpc) and not is_webhook(rpc):
        assert rpc.rate_limit is not None


@every_rpc
def test_a_change_that_a_role_allows_is_audited(rpc: Rpc) -> None:
    if rpc.access is Access.ROLES and changes(rpc):
        assert rpc.audit


@every_rpc
def test_its_service_implements_it(rpc: Rpc) -> None:
    base = CONTRACT[rpc.service].servicer_class
    servicers = {
        one
        for module in modules(workload(rpc.service))
        for one in vars(module).values()
        if isinstance(one, type) and issubclass(one, base) and one is not base
    }
    (kind,) = [one for one in servicers if not any(other is not one and issubclass(other, one) for other in servicers)]
    assert getattr(kind, rpc.method) is not getattr(base, rpc.method)


def modules(package: str) -> Iterator[ModuleType]:
    """The modules in which a service may implement what it serves."""
    for path in sorted((ROOT / package).glob("service*.py")):
        yield importlib.import_module(f"{package}.{path.stem}")


def fields(kind: Descriptor, path: str = "", seen: tuple[str, ...] = ()) -> Iterator[tuple[str, FieldDescriptor]]:
    """Every field of a request, at any depth, with its path."""
    for field in kind.fields:
        here = f"{path}{field.name}"
        yield here, field
        inner = field.message_type
        ours = inner is not None and inner.full_name.startswith("shop.") and not inner.GetOptions().map_entry
        if ours and inner.full_name not in seen:
            yield from fields(inner, f"{here}.", (*seen, kind.full_name))


REQUESTS = sorted({rpc.request_type for rpc in RPCS.values() if not is_webhook(rpc)})


@pytest.mark.parametrize("request_type", REQUESTS)
def test_no_field_of_a_request_is_without_bounds(request_type: str) -> None:
    """S10, S28, S30: a text of any length, a list of any size, a NUL, are refused before anybody looks at them."""
    unbounded = [
        path
        for path, field in fields(POOL.FindMessageTypeByName(request_type))
        if not _is_output(field) and not _bounded(field, field.GetOptions().Extensions[validate_pb2.field])
    ]
    assert unbounded == []


def _is_output(field: FieldDescriptor) -> bool:
    return OUTPUT_ONLY in field.GetOptions().Extensions[field_behavior]


def _bounded(field: FieldDescriptor, rules: Any) -> bool:
    if field.is_repeated:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
            return bool(rules.map.max_pairs and _bounded(key, rules.map.keys) and _bounded(value, rules.map.values))
        few = rules.repeated.max_items or (rules.repeated.unique and field.type == FieldDescriptor.TYPE_ENUM)
        return bool(few) and _single_bounded(field, rules.repeated.items)
    return _single_bounded(field, rules)


def _single_bounded(field: FieldDescriptor, rules: Any) -> bool:
    if field.type == FieldDescriptor.TYPE_STRING:
        return _text_bounded(rules.string)
    if field.type == FieldDescriptor.TYPE_BYTES:
        return bool(rules.bytes.max_len)
    if field.type == FieldDescriptor.TYPE_ENUM:
        return bool(rules.enum.defined_only or rules.enum.HasField("const") or getattr(rules.enum, "in"))
    return True


def _text_bounded(rules: Any) -> bool:
    identifier = rules.Extensions[rules_pb2.identifier]
    closed = identifier or rules.HasField("const") or getattr(rules, "in") or rules.uuid
    ends = rules.pattern.startswith("^") and rules.pattern.endswith("$")
    measured = ends and not rules.pattern.rstrip("$").endswith(("*", "+"))
    short = rules.max_len or rules.max_bytes or rules.len
    return bool(closed or measured or (short and (ends or rules.WhichOneof("well_known"))))
