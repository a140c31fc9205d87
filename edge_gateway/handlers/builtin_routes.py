"""The paths that every edge serves besides its routes: health, the OpenAPI document, its reference, and batches."""

import json

from protobuf import Registry

from edge_gateway.handlers.batch import BatchHandler
from edge_gateway.handlers.health import Health
from edge_gateway.http.static_files import BuiltinRoute, StaticFile
from edge_gateway.openapi import document
from edge_gateway.reference import assets
from edge_gateway.routing.rules import Routes
from edge_gateway.settings import BATCH_PATH, Settings


def builtin_routes(
    registry: Registry, routes: Routes, settings: Settings, health: Health, batches: BatchHandler
) -> dict[str, BuiltinRoute]:
    """Return the built-in routes by path, with and without the prefix that routes ignore."""

    def described() -> bytes:
        text = json.dumps(document(registry, routes, settings), ensure_ascii=False, separators=(",", ":"))
        return text.encode()

    pages = {"/healthz": BuiltinRoute(health.serve), BATCH_PATH: BuiltinRoute(batches.serve, ("POST",))}
    if settings.docs:
        pages["/openapi.json"] = BuiltinRoute(StaticFile("application/json", described).serve)
        pages.update((path, BuiltinRoute(asset.serve)) for path, asset in assets(settings.static_dir).items())
    prefix = settings.prefix.rstrip("/")
    return {**pages, **{prefix + path: page for path, page in pages.items()}}
