"""The router, compared with regular expressions of the templates."""

import re
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_gateway.errors import EdgeError
from edge_gateway.routing.router import DuplicateRouteError, Router
from edge_gateway.routing.template import REST, STAR, Template, parse_template
from tests.edge.attempts import attempt

SEGMENTS = st.sampled_from(["a", "b", "c", STAR])
PATH_SEGMENTS = st.sampled_from(["a", "b", "c", "d", "x%2Fy", "a:go", "b:stop", "%61", ".", "", "z"])
METHODS = ("GET", "POST")


@st.composite
def templates(draw: st.DrawFn) -> str:
    segments = draw(st.lists(SEGMENTS, max_size=4))
    if draw(st.booleans()):
        segments += [REST, *draw(st.lists(st.sampled_from(["a", "b"]), max_size=2))]
    verb = draw(st.sampled_from(["", "", ":go", ":stop"]))
    return "/" + "/".join(segments or ["a"]) + verb


def expression(template: Template) -> re.Pattern[str]:
    """Return the template as a regular expression: each segment with the slash before it."""
    parts = {STAR: r"/[^/]+", REST: r"(?:/[^/]+)*"}
    pattern = "".join(parts.get(segment, "/" + re.escape(segment)) for segment in template.segments)
    return re.compile(pattern + (re.escape(f":{template.verb}") if template.verb else ""))


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    rules=st.lists(st.tuples(st.sampled_from(METHODS), templates()), min_size=1, max_size=8),
    path=st.lists(PATH_SEGMENTS, min_size=1, max_size=6).map(lambda segments: "/" + "/".join(segments)),
    method=st.sampled_from([*METHODS, "HEAD", "DELETE"]),
)
def test_a_path_is_matched_exactly_when_a_template_of_its_method_matches(
    rules: list[tuple[str, str]], path: str, method: str
) -> None:
    router: Router[str] = Router()
    added = set()
    for rule_method, text in rules:
        template = parse_template(text)
        try:
            router.add(rule_method, template, f"{rule_method} {text}")
            added.add((rule_method, text))
        except DuplicateRouteError:
            assert any((rule_method, template.segments, template.verb) == (m, t.segments, t.verb)
                       for m, t in ((m, parse_template(x)) for m, x in added))  # fmt: skip
    segments = path[1:].split("/")
    sound = path == "/" or ("" not in segments and "." not in segments)
    matched = "" if path == "/" else path  # which has no segments
    fitting = {(m, x) for m, x in added if sound and expression(parse_template(x)).fullmatch(matched)}
    verbs = {(m, x) for m, x in fitting if parse_template(x).verb}
    candidates = verbs or fitting  # a known verb is never part of the last segment
    wanted = {m for m, _ in candidates}
    found = attempt(lambda: router.match(method, path).target)
    if isinstance(found, EdgeError):
        assert found.http_status == (405 if wanted else 404)
        assert set(found.allowed) == wanted
        assert method not in wanted
    else:
        assert tuple(found.split(" ", 1)) in candidates
        assert found.startswith(method) or (method == "HEAD" and found.startswith("GET"))


@st.composite
def variables(draw: st.DrawFn) -> tuple[str, re.Pattern[str]]:
    """Draw a template of variables and literals, and the regular expression of what each variable captures."""
    text, pattern, rest = "", "", False
    for number in range(draw(st.integers(1, 4))):
        inner = draw(st.lists(st.sampled_from(["a", STAR, REST]), min_size=1, max_size=3))
        # Only literals may follow a `**`.
        inner = [part for at, part in enumerate(inner) if part == "a" or not (rest or REST in inner[:at])] or ["a"]
        rest = rest or REST in inner
        held = draw(st.booleans())
        text += f"/{{v{number}={'/'.join(inner)}}}" if held else "/" + "/".join(inner)
        # The slash before a variable is not a part of it; a `**` of no segments has no slash either.
        parts = {STAR: "/[^/]+", REST: "(?:/[^/]+)*"}
        run = "".join(parts.get(part, "/" + part) for part in inner)
        pattern += f"(?P<v{number}>{run})" if held else run
    return text, re.compile(pattern)


@settings(derandomize=True, max_examples=200, deadline=None)
@given(
    rule=variables(),
    path=st.lists(st.sampled_from(["a", "a", "b"]), min_size=1, max_size=7).map(lambda parts: "/" + "/".join(parts)),
)
def test_variables_capture_the_segments_that_they_cover(rule: tuple[str, re.Pattern[str]], path: str) -> None:
    text, pattern = rule
    router: Router[str] = Router()
    router.add("GET", parse_template(text), text)
    wanted = pattern.fullmatch(path)
    found = attempt(lambda: router.match("GET", path))
    if isinstance(found, EdgeError):
        assert wanted is None
    else:
        assert wanted is not None
        assert list(found.captured) == [value.removeprefix("/") for value in wanted.groupdict().values()]


@pytest.mark.parametrize("verb", ["", ":go"])
@pytest.mark.parametrize(
    "order", list(permutations(["/v1/{n=**}", "/v1/{n=**}/b", "/v1/{n=**}/a/b", "/v1/x/{n=**}/b"]))
)
def test_the_rest_with_the_most_literals_behind_it_wins_in_any_order(order: tuple[str, ...], verb: str) -> None:
    router: Router[str] = Router()
    for text in order:
        router.add("GET", parse_template(text + verb), text)
    found = {path: router.match("GET", path + verb) for path in ("/v1/c/a/b", "/v1/c/d/b", "/v1/c/b/d", "/v1/x/a/b")}
    assert [(match.target, match.captured) for match in found.values()] == [
        ("/v1/{n=**}/a/b", ("c",)),
        ("/v1/{n=**}/b", ("c/d",)),
        ("/v1/{n=**}", ("c/b/d",)),
        ("/v1/x/{n=**}/b", ("a",)),
    ]


@pytest.mark.parametrize(("text", "captured"), [("/**", ()), ("/{name=**}", ("",))])
def test_the_root_matches_a_rest_of_no_segments(text: str, captured: tuple[str, ...]) -> None:
    router: Router[str] = Router(prefix="/api")
    router.add("GET", parse_template(text), text)
    assert router.match("GET", "/").captured == captured


@settings(derandomize=True, max_examples=100, deadline=None)
@given(path=st.text(max_size=60).map(lambda text: "/v1/" + text), method=st.text(max_size=8))
def test_an_arbitrary_path_is_matched_or_rejected(path: str, method: str) -> None:
    router: Router[str] = Router(prefix="/api")
    for text in ("/v1/{a}", "/v1/{a=b/*}:go", "/v1/c/{a=**}", "/v1/{a=**}/end"):
        router.add("GET", parse_template(text), text)
    found = attempt(lambda: router.match(method, path))
    assert not isinstance(found, EdgeError) or found.http_status in (400, 404, 405)


def test_two_spellings_of_one_route_are_rejected() -> None:
    router: Router[int] = Router()
    router.add("GET", parse_template("/v1/{a}/b"), 1)
    router.add("POST", parse_template("/v1/{a}/b"), 2)
    with pytest.raises(DuplicateRouteError, match=r"GET /v1/\*/b matches the same paths as /v1/\{a\}/b"):
        router.add("GET", parse_template("/v1/*/b"), 3)


def test_many_segments_are_matched_in_linear_time() -> None:
    router: Router[int] = Router()
    router.add("GET", parse_template("/{a=**}/b/c"), 1)
    router.add("GET", parse_template("/*/{a=**}/b/d"), 2)
    with pytest.raises(EdgeError):
        router.match("GET", "/b" * 8_000)
