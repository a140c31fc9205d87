"""What the docs name is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted({*ROOT.glob("*.md"), *ROOT.glob("[!.]*/*.md"), *ROOT.glob("docs/**/*.md")})
PLACE = re.compile(r"`((?:bench|chassis|docs|edge_gateway|gen|mesh|protos|svc_[a-z]+|tests)/[\w./-]*)`")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_place_and_link_that_a_document_names_is_there(document):
    text = document.read_text()
    places = [ROOT / name for name in PLACE.findall(text)] + [document.parent / name for name in LINK.findall(text)]
    assert [str(place) for place in places if not place.exists()] == []


def test_there_are_documents():
    assert {"README.md", "request.md"} <= {path.name for path in DOCUMENTS}
