"""The pages under /docs: a reference of the API to read and to try, and an order to watch live.

Plain HTML, CSS and JavaScript without any other library: they work offline, and all that they know of the API
they read from /openapi.json.
"""

from pathlib import Path

from edge_gateway.headers import Header
from edge_gateway.page import Asset
from edge_gateway.rules import Routes

_FOLDER = Path(__file__).parent
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

_REFERENCE = {
    "/docs": "reference.html",
    "/docs/page.css": "page.css",
    "/docs/reference.css": "reference.css",
    "/docs/reference.js": "reference.js",
    "/docs/operation.js": "operation.js",
    "/docs/schema.js": "schema.js",
    "/docs/try.js": "try.js",
    "/docs/page.js": "page.js",
    "/docs/http.js": "http.js",
    "/docs/icon.svg": "icon.svg",
}
_LIVE = {
    "/docs/live": "live.html",
    "/docs/live.css": "live.css",
    "/docs/live.js": "live.js",
    "/docs/order.js": "order.js",
}
#: The live page is the shop's own: an edge that does not serve orders does not serve it.
_WATCHED = "/shop.order.v1.OrderService/WatchOrder"


def assets(routes: Routes) -> dict[str, Asset]:
    """Every file by its path."""
    has_orders = any(rule.rpc.path == _WATCHED for rule in routes.rules)
    files = {**_REFERENCE, **(_LIVE if has_orders else {})}
    return {path: _asset(_FOLDER / name) for path, name in files.items()}


def _asset(file: Path) -> Asset:
    return Asset(_MEDIA_TYPES[file.suffix], file.read_bytes, *_LOCKED)
