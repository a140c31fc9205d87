"""The grammar of path templates."""

import pytest

from edge_gateway.routing.template import TemplateError, Variable, parse_template

BAD = [
    "", "/", "//", "/{}", "/a/", "/a//b", "/:verb", "/*:", "/:", "/a/{x=var:verb}", "/a/**/**", "/foo/bar/***", "/{1}",
    "{field-}", "/{field-}", "/{a.}", "/{.a}", "/{a..b}", "/{a=}", "/{a", "/a}", "/{a={b}}", "/{a=b/{c}}", "/{a}/{a}",
    "/a{b}", "/{a}b", "a/b", "/a:", "/a:b:c", "/a:b/c", "/a b", "/a?b", "/a#b", "/a/%zz", "/{a=**}/{b=**}",
    "/*a", "/**a", "/**/*", "/v1/**/{b}", "/{a=**}/b/*", "/{a=**}/{b=c/*}:d", "/{a=b/**/*}",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD)
def test_c19_an_invalid_template_is_rejected_and_quoted(text: str) -> None:
    with pytest.raises(TemplateError) as caught:
        parse_template(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "segments", "verb"),
    [
        ("/a", ("a",), None),
        ("/a/*/**:verb", ("a", "*", "**"), "verb"),
        ("/{a}", ("*",), None),
        ("/{a=**}", ("**",), None),
        ("/a/{b=c/*/d/**}:e", ("a", "c", "*", "d", "**"), "e"),
        ("/**/a/{b=c}", ("**", "a", "c"), None),
        ("/a-b.c_d~e!$&'()+,;@%20", ("a-b.c_d~e!$&'()+,;@%20",), None),
    ],
)
def test_a_valid_template_is_parsed_into_segments(text: str, segments: tuple[str, ...], verb: str | None) -> None:
    template = parse_template(text)
    assert (template.segments, template.verb) == (segments, verb)


def test_variables_have_the_range_of_segments_that_they_cover() -> None:
    assert parse_template("/v1/{a.b=x/*}/**/{c=y}/{d=z}").variables == (
        Variable(("a", "b"), start=1, stop=3, multiple=True),
        Variable(("c",), start=-2, stop=-1, multiple=False),
        Variable(("d",), start=-1, stop=None, multiple=False),
    )
    assert parse_template("/v1/{a=x/**}/y").variables == (Variable(("a",), start=1, stop=-1, multiple=True),)
    assert parse_template("/v1/{a=**}").variables == (Variable(("a",), start=1, stop=None, multiple=True),)
