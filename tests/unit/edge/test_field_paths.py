"""Field paths in errors have JSON names, whether the edge or a service reports them."""

import pytest
from protobuf import DescMessage, Registry

from edge_gateway.errors import EdgeError
from edge_gateway.grpc_client.field_paths import convert_field_paths, json_path


@pytest.fixture
def kinds(registry: Registry) -> DescMessage:
    found = registry.message("edgetest.v1.Kinds")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("name", "name"),
        ("snake_case_name", "snakeCaseName"),
        ("snakeCaseName", "snakeCaseName"),
        ("custom", "customName"),
        ("deep.deep.opt_text", "deep.deep.optText"),
        ("subs[0].long_name", "subs[0].longName"),
        ("subs[0]", "subs[0]"),
        ("mi[-7].long_name", "mi[-7].longName"),
        ('mc["a_b.c_d]"]', 'mc["a_b.c_d]"]'),
        ('mc["a\\"]_b"]', 'mc["a\\"]_b"]'),
        ("mc[a_b]", "mc[a_b]"),
        ("mc[opt_text.opt_text]", "mc[opt_text.opt_text]"),
        ("deep.not_known.opt_text", "deep.not_known.opt_text"),
        ("opt_text.opt_text", "optText.opt_text"),
        ("[a.b_c]", "[a.b_c]"),
        ("not a path_at all", "not a path_at all"),
        ("", ""),
        ("opt_text.", "optText."),
        ("opt_text[", "opt_text["),
    ],
)
def test_a_path_is_converted_to_json_names(path: str, expected: str, kinds: DescMessage) -> None:
    assert json_path(kinds, path) == expected
    assert json_path(kinds, expected) == expected


def test_violations_and_the_message_use_the_same_names(kinds: DescMessage) -> None:
    prefix = "type.googleapis.com/google.rpc."
    details = (
        {"@type": prefix + "ErrorInfo", "metadata": {"field": "deep.opt_text", "other": "opt_text"}},
        {"@type": prefix + "BadRequest", "fieldViolations": [{"field": "deep.opt_text"}, {"description": "d"}]},
        {"@type": prefix + "BadRequest"},
        {"@type": prefix + "ErrorInfo"},
        {"@type": "type.googleapis.com/nope.Nope", "value": "AAA="},
    )
    error = EdgeError(3, "not valid: deep.opt_text: too long", details)
    convert_field_paths(error, kinds)
    assert error.message == "not valid: deep.optText: too long"
    assert details[0]["metadata"] == {"field": "deep.optText", "other": "opt_text"}
    assert details[1]["fieldViolations"] == [{"field": "deep.optText"}, {"description": "d"}]
