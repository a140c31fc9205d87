"""Every rule that a proto can break fails the build, naming file, line and culprit."""

from pathlib import Path

import pytest

from mesh.codegen import protoc_gen_shop

RULE_OF_WATCH = """    option (shop.options.v1.rpc) = {
      access: ACCESS_USER
      callers: "edge"
    };
"""
GET, CREATE, WATCH = "rpc GetToy", "rpc CreateToy", "rpc WatchToy"
STATE, CREATED = "ERROR_REASON_WRONG_STATE", "message ToyCreated"

# What is changed, into what, the declaration that is then at fault, and the complaint about it.
MISTAKES = {
    "a method without our option": (RULE_OF_WATCH, "", WATCH, "has no (shop.options.v1.rpc)"),
    "a method that leaves its access open": ("access: ACCESS_USER", "", WATCH, "does not say its access"),
    "an unspecified access": ("ACCESS_USER", "ACCESS_UNSPECIFIED", WATCH, "does not say its access"),
    "a method without callers": ('USER\n      callers: "edge"', "USER", WATCH, "names no callers"),
    "a caller that is no service": ("svc_toy", "svc_tyo", GET, "names the unknown caller 'svc_tyo'"),
    "roles that are demanded but not named": ('roles: "admin"', "", CREATE, "has ACCESS_ROLES without roles"),
    "roles that nobody asks for": ("ACCESS_ROLES", "ACCESS_USER", CREATE, "has roles, which ACCESS_USER"),
    "workloads of a method for users": (
        'USER\n      callers: "edge"',
        'USER\n      callers: "svc_toy"\n      workloads: "svc_toy"',
        WATCH,
        "has workloads, which ACCESS_USER does not use",
    ),
    "the edge without a user": (
        'roles: "admin"',
        'roles: "admin"\n      workloads: "edge"',
        CREATE,
        "has workloads that are no callers within the mesh: edge",
    ),
    "a unary method without timeout": ("timeout: {seconds: 3}", "", CREATE, "is unary and has no timeout"),
    "a timeout of nothing": ("{seconds: 3}", "{seconds: 0}", CREATE, "has a timeout that is not positive"),
    "a rate limit of nothing": ("requests: 5", "requests: 0", GET, "has a rate limit whose"),
    "a rate limit without a window": ("per: {seconds: 60}", "", GET, "has a rate limit whose"),
    "a method for workloads that admits calls from outside": (
        "ACCESS_USER",
        "ACCESS_WORKLOAD",
        WATCH,
        "has ACCESS_WORKLOAD, but admits calls from outside ('edge')",
    ),
    "a JSON route that the edge may not call": (
        'roles: "admin"\n      callers: "edge"',
        'roles: "admin"\n      callers: "svc_toy"',
        CREATE,
        "has a JSON route, but does not admit calls from outside ('edge')",
    ),
    "a rate limit of calls that cannot come": (
        'callers: "edge"\n      callers: "svc_toy"',
        'callers: "svc_toy"',
        GET,
        "has a rate limit, which counts calls from outside",
    ),
    "a stream from the client": (
        "WatchToy(WatchToyRequest)",
        "WatchToy(stream WatchToyRequest)",
        WATCH,
        "streams from its client",
    ),
    "a stream that is no read": (
        "returns (stream Toy) {\n    option idempotency_level = NO_SIDE_EFFECTS;",
        "returns (stream Toy) {\n    option idempotency_level = IDEMPOTENT;",
        WATCH,
        "does not say NO_SIDE_EFFECTS",
    ),
    "a request_id that is no string": (
        "string request_id",
        "int64 request_id",
        CREATE,
        "the request_id of CreateToyRequest is no string",
    ),
    "a stream that changes something": (
        "returns (stream Toy) {\n    option idempotency_level = NO_SIDE_EFFECTS;",
        "returns (stream Toy) {",
        WATCH,
        "changes something, but neither has a `string request_id`",
    ),
    "a reason without our option": (
        """ [(shop.options.v1.error) = {
    code: NOT_FOUND
    message: "It is {{gone}}."
  }]""",
        "",
        "ERROR_REASON_GONE",
        "has no (shop.options.v1.error)",
    ),
    "a reason without code": ("code: FAILED_PRECONDITION", "", STATE, "has no code"),
    "a reason without message": ('    message: "It is {{gone}}."', "", "ERROR_REASON_GONE", "has no message"),
    "a brace that is never closed": ("{state}", "{state", STATE, "has a malformed message"),
    "a brace that was never opened": ("{state}", "state}", STATE, "has a malformed message"),
    "a placeholder with a format": ("{state}", "{state:>9}", STATE, "has a malformed message"),
    "a placeholder without a name": ("{state}", "{}", STATE, "has the placeholder {}, which is no name"),
    "a placeholder that is a path": ("{state}", "{toy.state}", STATE, "has the placeholder {toy.state}"),
    "a placeholder that is a keyword": ("{state}", "{class}", STATE, "has the placeholder {class}"),
    "an HTTP status that blames the host": (
        "http_status: 409",
        "http_status: 503",
        STATE,
        "outside 400 to 499",
    ),
    "an event without topic": ('    topic: "shop.toy.v1.Toy"', "", CREATED, "has the topic ''"),
    "an event whose topic is not declared": ('  name: "shop.toy.v1.Toy"', "", CREATED, "which is not declared once"),
    "another domain's topic": (
        '"shop.toy.v1.Toy"',
        '"shop.order.v1.Order"',
        CREATED,
        "which is not `shop.toy.v1.",
    ),
    "a topic that names no aggregate": ('"shop.toy.v1.Toy"', '"shop.toy.v1.toys"', CREATED, "has the topic"),
    "an event without key": ('key: "toy_id"', "", CREATED, "names no key"),
    "a key that is no field": ('key: "toy_id"', 'key: "part_id"', CREATED, "has no field `string part_id`"),
    "a key that is a list": (
        "  string toy_id = 1;",
        "  repeated string toy_id = 1;",
        CREATED,
        "has no field",
    ),
    "a message in an events file that is no event": (
        "  // What it is made of.\n  repeated Part parts = 2;\n",
        "",
        "message Part",
        "stands in an events file, but is neither an event nor part of one",
    ),
    "a password in the open": (
        "string password = 6 [(shop.options.v1.sensitive) = true]",
        "string password = 6",
        "string password",
        "looks like a secret",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_the_build_fails_on(compiled, toy: Path, mistake: str) -> None:
    old, new, culprit, complaint = MISTAKES[mistake]

    response = protoc_gen_shop.respond(compiled(old, new))

    assert response.file == []
    (proto,) = [path for path in toy.iterdir() if culprit in path.read_text("utf-8")]
    lines = proto.read_text("utf-8").splitlines()
    line = next(number for number, text in enumerate(lines, start=1) if culprit in text)
    reported = [problem for problem in response.error.splitlines() if complaint in problem]
    name = culprit.rpartition(" ")[2].removeprefix("ERROR_REASON_")
    assert len(reported) == 1, response.error
    assert reported[0].startswith(f"protos/shop/toy/v1/{proto.name}:{line}: shop.toy.v1.")
    assert reported[0].split(": ")[1].endswith(f".{name}")


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('  name: "shop.toy.v1.Toy"', '  name: "shop.order.v1.Order"', "is declared in the package shop.toy.v1"),
        ('    topic: "shop.toy.v1.Toy"', '    topic: "shop.toy.v1.Car"', "is a topic without events"),
        ("  partitions: 6\n", "", "is a topic whose `partitions` or `retention` is not positive"),
        ("  retention: {seconds: 604800}\n", "", "is a topic whose `partitions` or `retention` is not positive"),
        ("  partitions: 6", '  partitions: 6\n  consumers: ["svc_car"]', "names the unknown consumer 'svc_car'"),
    ],
)
def test_a_topic_with_a_mistake_fails_the_build(compiled, old: str, new: str, complaint: str) -> None:
    response = protoc_gen_shop.respond(compiled(old, new))

    (problem,) = [line for line in response.error.splitlines() if complaint in line]
    assert problem.startswith("protos/shop/toy/v1/toy_events.proto:8: shop.")


@pytest.mark.parametrize(
    "code", ["UNKNOWN", "INTERNAL", "DATA_LOSS", "UNIMPLEMENTED", "UNAVAILABLE", "DEADLINE_EXCEEDED"]
)
def test_a_code_that_would_eject_the_host_fails_the_build(compiled, code: str) -> None:
    response = protoc_gen_shop.respond(compiled("code: NOT_FOUND", f"code: {code}"))

    assert f"has the code {code}, which a proxy counts as the host's failure" in response.error


@pytest.mark.parametrize(
    "name",
    ["refresh_token", "client_secret", "secrets", "card_number", "card", "password_hash", "cvc", "api_key"],
)
def test_a_field_with_the_name_of_a_secret_must_be_marked(compiled, name: str) -> None:
    assert (
        f"shop.toy.v1.Part.{name}: looks like" in protoc_gen_shop.respond(compiled("name = 1;", f"{name} = 1;")).error
    )


@pytest.mark.parametrize(
    "name", ["page_token", "next_page_token", "resume_token", "card_brand", "token_type", "pancake"]
)
def test_a_field_whose_name_only_resembles_a_secret_needs_no_mark(compiled, name: str) -> None:
    assert protoc_gen_shop.respond(compiled("name = 1;", f"{name} = 1;")).error == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (
            "option idempotency_level = NO_SIDE_EFFECTS;\n    option (google.api.http)",
            "option (google.api.http)",
        ),
        ('{get: "/v1/toys/{toy_id}"}', '{post: "/v1/toys:find" body: "*"}'),
    ],
    ids=["because it is a GET", "because it says that it has no side effects"],
)
def test_a_read_needs_no_request_id(compiled, old: str, new: str) -> None:
    assert protoc_gen_shop.respond(compiled(old, new)).error == ""


def test_a_change_without_request_id_must_declare_its_idempotency_level(compiled) -> None:
    """A natural key may make its repeat harmless."""
    declared = compiled("string request_id = 1", "string repeat_id = 1")
    assert protoc_gen_shop.respond(declared).error == ""

    undeclared = compiled("    option idempotency_level = IDEMPOTENT;\n", "")
    (problem,) = protoc_gen_shop.respond(undeclared).error.splitlines()
    assert "CreateToy: changes something, but neither has a `string request_id` nor an idempotency_level" in problem


def test_all_problems_are_reported_together_and_in_order(compiled) -> None:
    problems = protoc_gen_shop.respond(compiled('callers: "edge"', 'callers: "egde"')).error.splitlines()

    methods = [problem.split(": ")[1].rpartition(".")[2] for problem in problems if "unknown caller" in problem]
    lines = [int(problem.split(":")[1]) for problem in problems]
    assert lines == sorted(lines)
    assert methods == [
        "GetToy",
        "CreateToy",
        "WatchToy",
        "ReceiveToy",
    ]
