"""Errors are sent as google.rpc.Status and restored as the class that was raised, in a size that always arrives."""

import importlib
import inspect
import re

import grpc
import pytest
from google.rpc import code_pb2, error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from chassis.errors import OutcomeUnknown, error_from_call, error_from_status, internal_status, status_of
from mesh.services import SERVICES
from shop import errors
from shop.chassis.v1.chassis_errors import InvalidRequest
from shop.inventory.v1.inventory_errors import InsufficientStock

for module in errors._MODULES.values():
    importlib.import_module(module)


def example(kind, text="x"):
    keywords = {name: text for name in inspect.signature(kind.__init__).parameters if name != "self"}
    return kind(**keywords)


@pytest.mark.parametrize("kind", errors.ERRORS.values(), ids=lambda kind: f"{kind.domain}.{kind.reason}")
def test_every_error_is_restored_as_its_class(kind):
    error = example(kind)
    back = error_from_status(status_pb2.Status.FromString(status_of(error).SerializeToString()))
    assert (type(back), back.message, back.metadata) == (kind, error.message, error.metadata)


@pytest.mark.parametrize("kind", errors.ERRORS.values(), ids=lambda kind: f"{kind.domain}.{kind.reason}")
def test_no_error_has_a_code_that_proxies_count_as_a_server_failure(kind):
    failures = {
        code_pb2.UNKNOWN,
        code_pb2.INTERNAL,
        code_pb2.UNAVAILABLE,
        code_pb2.DATA_LOSS,
        code_pb2.DEADLINE_EXCEEDED,
    }
    assert kind.code not in failures | {code_pb2.OK, code_pb2.UNIMPLEMENTED}


def test_a_status_has_exactly_one_error_info_and_then_its_details():
    status = status_of(InsufficientStock(available="a=1"), [error_details_pb2.RetryInfo()])
    assert [detail.type_url.rpartition(".")[2] for detail in status.details] == ["ErrorInfo", "RetryInfo"]


def test_a_reason_that_this_build_does_not_know_is_no_class():
    status = status_of(InsufficientStock(available="a=1"))
    info = error_details_pb2.ErrorInfo(reason="NEVER_HEARD_OF", domain="inventory.shop")
    status.details[0].Pack(info)
    assert error_from_status(status) is None
    assert error_from_status(status_pb2.Status(code=3)) is None


@given(st.text(max_size=20_000), st.integers(0, 300))
def test_a_status_of_any_error_fits_into_metadata(text, fields):
    """Clients reject trailers of more than 8 KiB, and lose the whole status."""
    violations = [
        error_details_pb2.BadRequest.FieldViolation(field=text[:100], description=text) for _ in range(fields)
    ]
    status = status_of(
        InvalidRequest(field=text, problem=text), [error_details_pb2.BadRequest(field_violations=violations)]
    )
    # As grpc-message, percent-encoded, and as binary.
    assert 3 * len(status.message.encode()) + len(status.SerializeToString()) <= 7_000
    back = error_from_status(status)
    assert type(back) is InvalidRequest
    if len(text) < 100:
        assert back.metadata == {"field": text, "problem": text}


def test_an_internal_error_has_its_id_alone():
    status, error_id = internal_status()
    assert (status.code, status.message, list(status.details)) == (code_pb2.INTERNAL, f"Internal error {error_id}.", [])
    assert internal_status()[1] != error_id


def failed(code, status=None, details=()):
    trailers = [*details]
    if status is not None:
        trailers.append(("grpc-status-details-bin", status))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(*trailers), "text")


@pytest.mark.parametrize(
    "code", ["CANCELLED", "UNKNOWN", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "RESOURCE_EXHAUSTED"]
)
def test_a_call_that_ends_without_a_reason_has_an_unknown_outcome(code):
    error = error_from_call("/shop.X/Y", failed(grpc.StatusCode[code]))
    assert isinstance(error, OutcomeUnknown)
    assert (error.method, error.code.name) == ("/shop.X/Y", code)


def test_a_rejected_call_raises_the_error():
    status = status_of(InsufficientStock(available="a=1")).SerializeToString()
    error = error_from_call("/shop.X/Y", failed(grpc.StatusCode.FAILED_PRECONDITION, status))
    assert (type(error), error.metadata) == (InsufficientStock, {"available": "a=1"})


@pytest.mark.parametrize("details", [b"\xff\xff", b"", status_pb2.Status(code=9).SerializeToString()])
def test_malformed_details_leave_the_outcome_unknown(details):
    error = error_from_call("/shop.X/Y", failed(grpc.StatusCode.FAILED_PRECONDITION, details))
    assert isinstance(error, OutcomeUnknown)


def test_every_error_of_the_contract_is_raised_by_some_code(repository):
    """One that no code raises would be documented for nothing, unless it is deprecated: old clients may know it."""
    folders = ("chassis", "edge_gateway", *SERVICES)
    sources = [path.read_text() for folder in folders for path in (repository / folder).glob("**/*.py")]
    words = set(re.findall(r"\w+", "".join(sources)))
    silent = [kind for kind in errors.ERRORS.values() if not {kind.__name__, kind.reason} & words]
    assert [kind for kind in silent if not is_deprecated(kind)] == []


def is_deprecated(kind):
    reasons = importlib.import_module(f"{kind.__module__}_pb2").ErrorReason.DESCRIPTOR
    return reasons.values_by_name[f"ERROR_REASON_{kind.reason}"].GetOptions().deprecated
