"""Messages, rules and behaviours as schemas: one case for each."""

from typing import Any

import pytest

from tests.unit.edge_openapi.conftest import document_of

THING = {
    "text": {"type": "string", "minLength": 2, "maxLength": 9, "pattern": "^[a-z]+$", "description": "The text."},
    "exact": {"type": "string", "const": "yes"},
    "choice": {"type": "string", "enum": ["", "a", "b"]},
    "email": {"type": "string", "format": "email"},
    "id": {"type": "string", "format": "uuid"},
    "affixed": {"type": "string", "pattern": r"^a\.", "allOf": [{"pattern": "z$"}]},
    "bytesLimited": {"type": "string", "maxLength": 7, "description": "At most 7 bytes of UTF-8."},
    "count": {
        "type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 10, "exclusiveMinimum": 0,
    },
    "ratio": {"type": "number", "format": "double", "minimum": 0, "exclusiveMaximum": 1},
    "big": {"type": "string", "format": "int64", "pattern": "^(?:-[1-5]|0|[1-9][0-9]{0,2}|1000)$"},
    "huge": {"type": "string", "format": "uint64", "pattern": "^(?:0|[1-9][0-9]{0,17})$"},
    "notThese": {
        "type": "integer", "format": "int32", "minimum": -(2**31), "maximum": 2**31 - 1, "not": {"enum": [7, 8]},
    },
    "color": {"type": "string", "enum": ["COLOR_RED", "COLOR_BLUE"]},
    "tags": {
        "type": "array", "items": {"type": "string", "maxLength": 4}, "minItems": 1, "maxItems": 3, "uniqueItems": True,
    },
    "counts": {
        "type": "object",
        "additionalProperties": {"type": "integer", "format": "int32", "minimum": 0, "maximum": 2**31 - 1},
        "propertyNames": {"pattern": "^k"},
        "minProperties": 1,
        "maxProperties": 2,
    },
    "wait": {
        "type": "string", "format": "google-duration",
        "pattern": r"^(?:(?:[1-9]|1[0-9]|[2-5][0-9])(?:\.[0-9]{1,9})?|60)s$",
        "description": "Must be at least 1s and at most 60s.",
    },
    "when": {"type": "string", "format": "date-time", "description": "Must be in the future."},
    "blob": {"type": "string", "format": "byte", "contentEncoding": "base64", "description": "At most 3 bytes."},
    "maybe": {"type": "string", "minLength": 1},
    "left": {"type": "string", "x-oneof": "either"},
    "part": {
        "allOf": [
            {"$ref": "#/components/schemas/PartInput"},
            {
                "properties": {
                    "name": {"type": "string", "minLength": 1},
                    "size": {"type": "string", "pattern": "^(?:[1-9])$"},
                },
                "required": ["name", "size"],
            },
        ],
        "description": "Needs a name and a size from 1 to 9.",
    },
    "wrapped": {"type": ["string", "null"]},
    "struct": {"type": "object", "additionalProperties": True},
    "value": {"description": "Any JSON value."},
    "wrappedLong": {"type": ["string", "null"], "format": "int64", "pattern": "^-?[0-9]{1,19}$"},
    "thingId": {"type": "string", "readOnly": True},
    "secret": {"type": "string", "writeOnly": True},
    "kind": {"type": "string", "x-immutable": True},
    "old": {"type": "string", "deprecated": True},
    "inner": {"$ref": "#/components/schemas/ThingInput"},
    "unchecked": {"type": "string"},
    "shown": {"type": "string", "maxLength": 20, "examples": ["as this"]},
}  # fmt: skip


@pytest.mark.parametrize("name", THING)
def test_a_field_of_a_request_has_its_rules(rules: dict[str, Any], name: str) -> None:
    assert rules["components"]["schemas"]["ThingInput"]["properties"][name] == THING[name]


def test_fields_are_required_by_rule_or_when_their_default_is_invalid(rules: dict[str, Any]) -> None:
    required = set(rules["components"]["schemas"]["ThingInput"]["required"])

    assert required == {"kind", "text", "exact", "email", "affixed", "count", "color", "tags", "counts", "when"}


def test_a_reply_has_the_fields_always_written_and_no_rules(rules: dict[str, Any]) -> None:
    thing = rules["components"]["schemas"]["Thing"]

    assert thing["properties"]["text"] == {"type": "string", "description": "The text."}
    assert thing["properties"]["color"] == {"$ref": "#/components/schemas/Color"}
    assert thing["properties"]["big"]["pattern"] == "^-?[0-9]+$"
    assert "secret" not in thing["properties"]
    assert {"thingId", "count", "tags", "counts", "color"} <= set(thing["required"])
    assert not {"when", "maybe", "left", "inner", "wrapped"} & set(thing["required"])
    assert "additionalProperties" not in thing


def test_a_patch_may_omit_required_fields(rules: dict[str, Any]) -> None:
    patch = rules["components"]["schemas"]["ThingPatch"]

    assert "kind" not in patch["required"]
    assert "text" in patch["required"]
    assert "thingId" not in patch["properties"], "the path holds it"


def test_a_rule_of_the_request_is_merged_into_the_body(rules: dict[str, Any]) -> None:
    body = rules["paths"]["/v1/things/{thingId}"]["put"]["requestBody"]

    assert body["content"]["application/json"]["schema"]["allOf"] == [
        {"$ref": "#/components/schemas/ThingInput"},
        {
            "properties": {"inner": {"type": "object"}, "kind": {"type": "string", "minLength": 1}},
            "required": ["inner", "kind"],
        },
    ]
    assert body["description"] == "thing.kind and thing.inner are needed."


def test_enums_are_names_with_their_comments(rules: dict[str, Any]) -> None:
    assert rules["components"]["schemas"]["Color"] == {
        "type": "string",
        "enum": ["COLOR_UNSPECIFIED", "COLOR_RED", "COLOR_BLUE"],
        "description": "Colours.",
        "x-enum-descriptions": ["", "Like blood.", ""],
    }


def test_a_oneof_is_described_as_text(rules: dict[str, Any]) -> None:
    assert "Holds at most one of `left` and `right`." in rules["components"]["schemas"]["Thing"]["description"]


def test_the_query_has_every_field_that_text_can_set(rules: dict[str, Any]) -> None:
    parameters = {it["name"]: it for it in rules["paths"]["/v1/things"]["get"]["parameters"]}

    assert list(parameters) == [
        "pageSize", "colors", "labels", "part.name", "part.size", "part.a", "part.b", "since", "wrapped",
    ]  # fmt: skip
    assert parameters["pageSize"]["schema"] == {"type": "integer", "format": "int32", "minimum": 0, "maximum": 100}
    assert parameters["colors"]["schema"]["items"] == {"$ref": "#/components/schemas/Color"}
    assert (parameters["labels"]["style"], parameters["labels"]["explode"]) == ("deepObject", True)
    assert parameters["part.name"]["description"] == "The part."
    assert parameters["since"]["schema"]["format"] == "date-time"
    assert parameters["wrapped"]["schema"]["type"] == "integer"


def test_a_mask_lists_its_possible_fields(rules: dict[str, Any]) -> None:
    (mask,) = [it for it in rules["paths"]["/v1/things/{thingId}"]["patch"]["parameters"] if it["in"] == "query"]

    assert mask["name"] == "updateMask"
    assert mask["schema"]["pattern"] == "^(?:(?:text|bytesLimited)(?:,(?:text|bytesLimited))*)?$"


def test_rules_of_one_path_agree_on_the_names_in_it(rules: dict[str, Any]) -> None:
    item = rules["paths"]["/v1/things/{thingId}"]

    assert set(item) == {"put", "patch", "get"}
    assert item["put"]["parameters"][0]["schema"] == {"type": "string", "pattern": "^[a-z]{1,8}$"}
    assert item["patch"]["parameters"][0]["x-field"] == "thing.thing_id"
    assert item["get"]["parameters"][0]["schema"] == {"type": "string", "minLength": 1}


def test_a_field_in_the_path_is_omitted_from_the_body(rules: dict[str, Any]) -> None:
    whole = rules["paths"]["/v1/things/{thingId}:put"]["post"]["requestBody"]["content"]["application/json"]["schema"]

    assert whole == {"$ref": "#/components/schemas/PutThingBody"}
    assert set(rules["components"]["schemas"]["PutThingBody"]["properties"]) == {"thing", "requestId"}


def test_comments_become_summary_and_description_without_internal_notes(rules: dict[str, Any]) -> None:
    put = rules["paths"]["/v1/things/{thingId}"]["put"]

    assert put["summary"] == "Puts a thing"
    assert put["description"] == "It is kept.\n\nAs `Thing` says."
    assert rules["tags"][0] == {"name": "Rules", "description": "Checks things.", "x-service": "rules.v1.Rules"}


def test_operations_are_named_and_further_bindings_are_marked(rules: dict[str, Any]) -> None:
    first = rules["paths"]["/v1/things/{thingId}"]["put"]
    second = rules["paths"]["/v1/things/{thingId}:put"]["post"]

    assert (first["operationId"], second["operationId"]) == ("Rules_PutThing", "Rules_PutThing_2")
    assert "x-additional-binding-of" not in first
    assert second["x-additional-binding-of"] == "Rules_PutThing"


def test_raw_bodies_are_of_any_type(rules: dict[str, Any]) -> None:
    operation = rules["paths"]["/v1/files"]["post"]

    assert list(operation["requestBody"]["content"]) == ["*/*"]
    assert list(operation["responses"]["200"]["content"]) == ["*/*"]


def test_a_custom_method_is_an_extension(rules: dict[str, Any]) -> None:
    assert rules["paths"]["/v1/things"]["x-methods"]["PURGE"]["operationId"] == "Rules_DeleteEverything"


def test_a_deprecated_method_is_marked(rules: dict[str, Any]) -> None:
    assert rules["paths"]["/v1/things/{thingId}"]["get"]["deprecated"] is True


def test_a_set_without_the_shops_options_requires_no_token(rules: dict[str, Any]) -> None:
    assert not [
        op for item in rules["paths"].values() for op in item.values() if op.get("security") == [{"bearer": []}]
    ]


def test_the_request_id_is_described_with_its_header(rules: dict[str, Any]) -> None:
    (field,) = [it for it in rules["paths"]["/v1/things/{thingId}"]["put"]["parameters"] if it["in"] == "query"]

    assert (field["name"], field["required"]) == ("requestId", True)
    assert field["description"] == "The header `Idempotency-Key` may replace it."
    assert rules["paths"]["/v1/things/{thingId}"]["put"]["x-idempotency-key"] == "requestId"


def test_the_document_follows_the_json_settings_of_the_edge(rules_image: bytes) -> None:
    document = document_of(rules_image, proto_names=True, emit_defaults=False, ignore_unknown=True, enum_numbers=True)
    thing, request = (document["components"]["schemas"][name] for name in ("Thing", "ThingInput"))

    assert "bytes_limited" in thing["properties"]
    assert thing["properties"]["color"] == {"type": "integer", "format": "int32"}
    assert "required" not in thing
    assert "additionalProperties" not in request
    assert "/v1/things/{thing_id}" in document["paths"]
