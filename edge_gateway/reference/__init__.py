"""The pages under /docs: a reference of the API to read and to try, and the pages of `--static-dir` beside it.

Plain HTML, CSS and JavaScript without any other library: they work offline, and all that they know of the API
they read from /openapi.json.
"""

import re
from collections.abc import Iterable
from html import escape
from pathlib import Path

from edge_gateway.http.headers import Header
from edge_gateway.http.static_files import StaticFile

_FOLDER = Path(__file__).parent
_ROOT = "/docs"
_MEDIA_TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
#: The pages hold a bearer token, so nothing but their own files may run in them or be called from them.
_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_LOCKED: tuple[Header, ...] = ((b"content-security-policy", _POLICY), (b"referrer-policy", b"no-referrer"))

_REFERENCE = "reference.html"
#: Where the reference links to the pages of `--static-dir`.
_LINKS = b"<!-- links to static pages -->"
_TITLE = re.compile(r"<title>([^<]*)</title>")


def assets(static_dir: str = "") -> dict[str, StaticFile]:
    """Return every file by its path; raise OSError or ValueError for a static directory that cannot be served."""
    own = [file for file in _FOLDER.iterdir() if file.suffix in _MEDIA_TYPES]
    static = sorted(Path(static_dir).iterdir()) if static_dir else []
    found = {_path(file): _asset(file) for file in own}
    for file in static:
        if file.suffix not in _MEDIA_TYPES or _path(file) in found:
            raise ValueError(f"{file} cannot be served: its type is unknown, or the reference has its path")
        found[_path(file)] = _asset(file)
    found[_ROOT] = StaticFile(_MEDIA_TYPES[".html"], lambda: _reference(static), *_LOCKED)
    return found


def _path(file: Path) -> str:
    if file.name == _REFERENCE:
        return _ROOT
    return f"{_ROOT}/{file.stem if file.suffix == '.html' else file.name}"


def _asset(file: Path) -> StaticFile:
    return StaticFile(_MEDIA_TYPES[file.suffix], file.read_bytes, *_LOCKED)


def _reference(static: Iterable[Path]) -> bytes:
    """Return the reference page with a link, named by its title, to each static page."""
    pages = [file for file in static if file.suffix == ".html"]
    return (_FOLDER / _REFERENCE).read_bytes().replace(_LINKS, "".join(map(_link, pages)).encode())


def _link(page: Path) -> str:
    title = _TITLE.search(page.read_text("utf-8"))
    return f'<a href="{_path(page)[1:]}">{escape(title[1] if title else page.stem)}</a>'
