"""The stream splitter returns the same objects however their bytes arrive."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_gateway.errors import EdgeError
from edge_gateway.json.json_stream_splitter import JsonStreamSplitter
from tests.edge.attempts import attempt

VALUES = st.text('{}"\\[], é', max_size=6) | st.lists(st.integers(), max_size=2)
OBJECTS = st.lists(st.dictionaries(st.text('a{}"\\[],', max_size=4), VALUES), max_size=4)


def split(body: bytes, cuts: list[int]) -> list[bytes]:
    splitter = JsonStreamSplitter(10_000)
    found, at = [], 0
    for cut in [*sorted(cut % (len(body) + 1) for cut in cuts), len(body)]:
        found += splitter.feed(body[at:cut])
        at = max(at, cut)
    splitter.finish()
    return found


@settings(derandomize=True, max_examples=100, deadline=None)
@given(
    objects=OBJECTS, cuts=st.lists(st.integers(0, 200), max_size=6), form=st.sampled_from(["array", "lines", "joined"])
)
def test_objects_are_split_whole_in_every_form_and_every_chunking(
    objects: list[Any], cuts: list[int], form: str
) -> None:
    texts = [json.dumps(value, ensure_ascii=False) for value in objects]
    body = {"array": f" [{' , '.join(texts)} ] ", "lines": "\n".join(texts), "joined": "".join(texts)}[form].encode()
    assert [json.loads(part) for part in split(body, cuts)] == objects


@settings(derandomize=True, max_examples=100, deadline=None)
@given(body=st.text('{}[],"\\ a', max_size=20).map(str.encode), cuts=st.lists(st.integers(0, 20), max_size=4))
def test_chunking_does_not_change_the_result(body: bytes, cuts: list[int]) -> None:
    def outcome(cuts: list[int]) -> list[bytes] | int:
        found = attempt(lambda: split(body, cuts))
        return found.http_status if isinstance(found, EdgeError) else found

    assert outcome(cuts) == outcome([])


def test_an_object_beyond_the_limit_is_rejected() -> None:
    splitter = JsonStreamSplitter(100)
    splitter.feed(b'{"a":"')
    with pytest.raises(EdgeError) as caught:
        splitter.feed(b"x" * 200)
    assert caught.value.http_status == 413
