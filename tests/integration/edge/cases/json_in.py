"""ProtoJSON of requests: C40 to C49."""

from tests.integration.edge.cases.case import TYPE, bad_body, echo, lacks, post

FLOAT = 3.4028234663852886e38


def _any_in_any(depth: int) -> bytes:
    opening = b'{"@type":"/edgetest.v1.Kinds","any":'
    return b'{"any":' + opening * depth + b"{}" + b"}" * (depth + 1)


def _nested(depth: int) -> bytes:
    return b'{"deep":' * depth + b"{}" + b"}" * depth


CASES = [
    *(
        echo(f"C40-int64-{value}", f'{{"i64":{value}}}'.encode(), {"i64": expected})
        for value, expected in (
            ("5", "5"),
            ('"5"', "5"),
            ("1e3", "1000"),
            ("1.0", "1"),
            ('"-7"', "-7"),
            ("9007199254740993", "9007199254740993"),
        )
    ),
    *(
        bad_body(f"C40-int64-{value}", f'{{"i64":{value}}}'.encode(), "i64")
        for value in ("1.5", '"x"', '""', '" 5"', '"0x1"', '"1_0"', "true", "9223372036854775808", "[]")
    ),
    bad_body("C40-malformed-number", b'{"i64":05}'),
    echo("C41-enum-by-number", {"color": 1}, {"color": "COLOR_RED"}),
    echo("C41-unknown-number-is-kept", {"color": 99}, {"color": 99}),
    bad_body("C41-unknown-name", {"color": "NOPE"}, "color"),
    bad_body("C41-unknown-name-in-the-lenient-edge", {"color": "NOPE", "bogus": 1}, "color", other=True),
    bad_body("C41-unknown-name-in-a-list", {"colors": ["COLOR_RED", "NOPE"]}, "colors[1]"),
    *(
        echo(f"C42-maximum-of-float-{number}", b'{"f32":%s}' % number.encode(), {"f32": FLOAT})
        for number in ("3.4028235e+38", "3.40282347e+38", '"3.4028235e+38"', "340282350000000000000000000000000000000")
    ),
    echo("C42-minimum-of-float", b'{"f32":-3.4028235e+38}', {"f32": -FLOAT}),
    echo("C42-maximum-of-float-lenient", b'{"f32":3.4028235e38,"x":1}', {"f32": FLOAT}, other=True),
    *(
        bad_body(f"C42-beyond-float-{number}", b'{"f32":%s}' % number.encode(), "f32")
        for number in ("3.4028236e38", "1e39")
    ),
    echo(
        "C42-maximum-of-float-in-lists-maps-and-messages",
        b'{"deep":{"rf":[1,3.4028235e38],"mf":{"a":3.4028235e38},"wf":3.4028235e38},"f64":3.4028235e38}',
        {"f64": 3.4028235e38},
        check=lambda a: [a.json["deep"][key] for key in ("rf", "mf", "wf")] == [[1.0, FLOAT], {"a": FLOAT}, FLOAT],
    ),
    bad_body("C42-beyond-float-in-a-list", b'{"f32":3.4028235e38,"rf":[1,1e39]}', "rf[1]"),
    echo("C42-names", {"f64": "NaN", "f32": "-Infinity"}, {"f64": "NaN", "f32": "-Infinity"}),
    bad_body("C42-bare-NaN", b'{"f64":NaN}', "f64"),
    bad_body("C42-bare-Infinity", b'{"sub":{},"f64":-Infinity}', "f64"),
    bad_body("C42-bare-NaN-inside-a-struct", b'{"struct":{"a":[1,NaN]}}', "struct.a[1]"),
    bad_body("C42-too-large", b'{"f64":1e400}', "f64"),
    echo(
        "C43-null-is-the-default",
        {"name": None, "sub": None, "rs": None, "opt": None},
        {"name": ""},
        check=lacks("sub", "opt"),
    ),
    bad_body("C43-null-in-a-list", {"rs": ["a", None]}, "rs[1]"),
    bad_body("C43-null-in-a-map", {"ms": {"a": None}}, 'ms["a"]'),
    echo("C43-null-value", {"value": None}, {"value": None}),
    bad_body("C44-duplicate-key", b'{"name":"a","name":"b"}', "name"),
    bad_body("C44-duplicate-key-of-one-value", b'{"name":"a","name":"a"}', "name"),
    bad_body("C44-duplicate-nested", b'{"subs":[{"s":"a"},{"s":"a","s":"b"}]}', "subs[1].s"),
    bad_body("C44-duplicate-in-a-map", b'{"ms":{"a":"1","a":"2"}}', "ms.a"),
    bad_body("C44-duplicate-in-a-struct", b'{"struct":{"a":{"b":1,"b":2}}}', "struct.a.b"),
    bad_body(
        "C44-duplicate-in-an-any", f'{{"any":{{"@type":"{TYPE}edgetest.v1.Sub","s":"a","s":"b"}}}}'.encode(), "any.s"
    ),
    bad_body("C44-both-spellings", b'{"snakeCaseName":"a","snake_case_name":"a"}', "snakeCaseName"),
    bad_body("C44-both-spellings-nested", b'{"sub":{"long_name":"a","longName":"b"}}', "sub.longName"),
    bad_body("C44-oneof-twice", {"oa": "x", "ob": 1}, "ob"),
    bad_body("C44-trailing-data", b'{"name":"a"} x'),
    bad_body("C44-two-documents", b'{"name":"a"}{"name":"b"}'),
    bad_body("C44-trailing-comma", b'{"name":"a",}'),
    bad_body("C44-lone-surrogate", b'{"sub":{"s":"\\ud800"}}', "sub.s"),
    bad_body("C44-lone-surrogate-in-a-key", b'{"ms":{"\\udc00":"x"}}', "ms"),
    echo("C44-surrogate-pair", b'{"name":"\\ud83d\\ude00"}', {"name": "\U0001f600"}),
    bad_body("C44-bad-utf8", b'{"name":"\xff"}'),
    bad_body("C44-byte-order-mark", b'\xef\xbb\xbf{"name":"a"}'),
    bad_body("C44-utf16", '{"name":"a"}'.encode("utf-16")),
    bad_body("C44-S23-NUL", b'{"subs":[{"s":"a\\u0000"}]}', "subs[0].s"),
    echo("C44-S23-escaped-backslash-is-no-NUL", b'{"name":"\\\\u0000"}', {"name": "\\u0000"}),
    bad_body("C44-S23-raw-control-character", b'{"name":"a\x01b"}'),
    bad_body("C44-S23-million-digits", b'{"i64":' + b"9" * 1_000_000 + b"}", "i64"),
    bad_body("C44-not-an-object", b"[]"),
    bad_body("C44-null-body", b"null"),
    bad_body("C44-comment", b"{/* no */}"),
    bad_body("C45-unknown-field", {"sub": {"bogus": 1}}, "sub.bogus"),
    bad_body("C45-wrong-case", {"SnakeCaseName": "x"}, "SnakeCaseName"),
    echo(
        "C45-unknown-field-in-the-lenient-edge",
        {"name": "a", "sub": {"bogus": 1, "s": "b"}, "bogus": {}},
        {"name": "a", "sub": {"s": "b"}},
        other=True,
    ),
    bad_body("C45-duplicates-in-the-lenient-edge", b'{"bogus":1,"bogus":2}', "bogus", other=True),
    bad_body("C45-surrogates-in-the-lenient-edge", b'{"name":"\\ud800"}', "name", other=True),
    bad_body("C46-bad-timestamp", {"ts": "2020-01-02"}, "ts"),
    bad_body("C46-timestamp-out-of-range", {"ts": "0000-01-01T00:00:00Z"}, "ts"),
    bad_body("C46-duration-out-of-range", {"du": "315576000001s"}, "du"),
    echo(
        "C47-any",
        {"any": {"@type": TYPE + "edgetest.v1.Sub", "s": "x"}},
        check=lambda a: a.json["any"]["s"] == "x",
        holds={},
    ),
    echo(
        "C47-any-of-a-well-known-type",
        {"any": {"@type": TYPE + "google.protobuf.Duration", "value": "3s"}},
        {"any": {"@type": TYPE + "google.protobuf.Duration", "value": "3s"}},
    ),
    bad_body("C47-any-of-an-unknown-type", {"any": {"@type": TYPE + "nope.Nope"}}, "any"),
    bad_body("C47-any-without-a-type", {"any": {"s": "x"}}, "any"),
    echo("C49-depth-98", _nested(98), {}),
    *(bad_body(f"C49-depth-{depth}", _nested(depth)) for depth in (100, 101, 1_000, 100_000)),
    bad_body("C49-depth-of-lists", b'{"value":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    *(bad_body(f"C49-any-in-any-{depth}", _any_in_any(depth)) for depth in (100, 1_000, 20_000)),
    bad_body("C49-depth-of-an-unknown-field", b'{"bogus":' + b"[" * 50_000 + b"]" * 50_000 + b"}", other=True),
    post("C49-size", "/v1/echo", b'{"name":"' + b"a" * 1_100_000 + b'"}', {"code": 8}, status=413),
    bad_body("S08-unknown-fields-are-not-dropped", {"name": "x", "isAdmin": True, "role": "admin"}, "isAdmin"),
    bad_body("S23-integer-as-text", {"flag": "true"}, "flag"),
    bad_body("S23-wrong-types", {"sub": 5}, "sub"),
    bad_body("S23-list-for-a-map", {"ms": []}, "ms"),
    bad_body("S23-map-for-a-list", {"rs": {}}, "rs"),
    bad_body("S23-bad-map-key", {"mi": {"x": {}}}, 'mi["x"]'),
    bad_body("S23-bytes", {"by": "!"}, "by"),
    bad_body("S23-mask-in-snake-case", {"mask": "snake_case"}, "mask"),
]
