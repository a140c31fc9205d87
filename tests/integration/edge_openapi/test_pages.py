"""The edge's built-in routes: the OpenAPI document and the pages."""

import json
import re
import zlib
from pathlib import Path

import brotli
import pytest
import zstandard
from openapi_spec_validator import validate

from tests.edge import processes
from tests.edge.client import fetch
from tests.unit.edge_openapi.conftest import document_of

FILES = [
    "/docs",
    "/docs/page.css",
    "/docs/reference.css",
    "/docs/reference.js",
    "/docs/operation.js",
    "/docs/schema.js",
    "/docs/try.js",
]


def test_the_document_is_that_of_the_routes(port: int, folder: Path) -> None:
    answer = fetch(port, "GET", "/openapi.json")

    assert answer.status == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json == document_of((folder / "test.binpb").read_bytes())
    validate(answer.json)


def test_the_document_follows_the_options_of_the_edge(folder: Path, options: tuple[str, ...]) -> None:
    chosen = ("--proto-names", "--unbound", "--omit-defaults")
    with processes.edge(folder / "other.log", *options, *chosen) as (_, port):
        document = fetch(port, "GET", "/openapi.json").json

    assert "/edgetest.v1.Library/Unbound" in document["paths"]
    assert "snake_case_name" in document["components"]["schemas"]["Kinds"]["properties"]
    assert "required" not in document["components"]["schemas"]["Kinds"]


@pytest.mark.parametrize(
    ("coding", "decode"),
    [
        ("br", brotli.decompress),
        ("gzip", lambda body: zlib.decompress(body, 31)),
        ("zstd", lambda body: zstandard.ZstdDecompressor().decompressobj().decompress(body)),
    ],
)
def test_the_document_is_compressed_and_revalidated_by_its_etag(port: int, coding: str, decode) -> None:
    answer = fetch(port, "GET", "/openapi.json", headers=[("accept-encoding", coding)])

    assert answer.headers["content-encoding"] == coding
    assert json.loads(decode(answer.body))["openapi"] == "3.1.0"
    again = fetch(port, "GET", "/openapi.json", headers=[("if-none-match", answer.headers["etag"])])
    assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("path", FILES)
def test_the_pages_are_served_and_may_run_nothing_but_their_own_files(port: int, path: str) -> None:
    answer = fetch(port, "GET", path)

    assert answer.status == 200
    assert answer.headers["content-type"].startswith(("text/html", "text/css", "text/javascript"))
    assert "default-src 'none'; script-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["etag"]
    head = fetch(port, "HEAD", path)
    assert (head.status, head.body) == (200, b"")


def test_every_file_that_a_page_names_is_there(port: int) -> None:
    waiting, seen = ["/docs"], set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        answer = fetch(port, "GET", path)
        assert answer.status == 200, path
        text = answer.body.decode()
        folder = path.rpartition("/")[0]
        named = re.findall(r'(?:src|href)="([\w./]+\.(?:js|css|svg|json))"', text) + re.findall(
            r'from "\./(\w+\.js)"', text
        )
        waiting += [f"{folder}/{name}" for name in named]
        assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)[\w.]+", text), "a page that works offline"
    assert {"/docs/reference.js", "/docs/http.js", "/docs/page.js", "/docs/icon.svg", "/openapi.json"} <= seen


def test_the_pages_are_served_below_the_prefix_too(port: int) -> None:
    assert fetch(port, "GET", "/api/docs").status == 200
    assert fetch(port, "GET", "/api/openapi.json").status == 200


def test_pages_of_a_static_directory_are_served_as_the_reference_is(
    folder: Path, options: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "live.html").write_text("<title>Live order</title>")
    (tmp_path / "live.js").write_text("export const live = 1;\n")
    with processes.edge(folder / "static.log", *options, "--static-dir", str(tmp_path)) as (_, port):
        reference, live = fetch(port, "GET", "/docs"), fetch(port, "GET", "/docs/live")
        script = fetch(port, "GET", "/api/docs/live.js", headers=[("accept-encoding", "gzip")])
        assert (live.status, live.body) == (200, (tmp_path / "live.html").read_bytes())
        assert (script.headers["content-type"], script.headers["content-encoding"]) == (
            "text/javascript; charset=utf-8",
            "gzip",
        )
        for header in ("content-security-policy", "referrer-policy", "cache-control", "vary", "content-type"):
            assert live.headers[header] == reference.headers[header]
        again = fetch(port, "GET", "/docs/live", headers=[("if-none-match", live.headers["etag"])])
        assert (again.status, again.body) == (304, b"")
        assert b'<a href="docs/live">' in reference.body


def test_an_edge_without_a_static_directory_has_no_further_pages(port: int) -> None:
    assert fetch(port, "GET", "/docs/live").status == 404
    assert b"docs/live" not in fetch(port, "GET", "/docs").body


@pytest.mark.parametrize("name", ["page.css", "program.exe", None])
def test_a_static_directory_that_cannot_be_served_prevents_the_start(
    folder: Path, options: tuple[str, ...], tmp_path: Path, name: str | None
) -> None:
    directory = tmp_path / "static"
    if name is not None:
        directory.mkdir()
        (directory / name).write_text("")
    with (
        pytest.raises(RuntimeError, match=str(directory)),
        processes.edge(folder / "static.log", *options, "--static-dir", str(directory)),
    ):
        pass


def test_pages_reject_other_methods(port: int) -> None:
    for path in ("/docs", "/openapi.json", "/healthz"):
        answer = fetch(port, "POST", path, b"{}")
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


def test_no_docs_disables_the_pages(folder: Path, options: tuple[str, ...]) -> None:
    with processes.edge(folder / "bare.log", *options, "--no-docs") as (_, port):
        assert fetch(port, "GET", "/docs").status == 404
        assert fetch(port, "GET", "/openapi.json").status == 404
        assert fetch(port, "GET", "/healthz").status == 200
