"""What svc_catalog can be told from outside."""

from dataclasses import dataclass

import chassis


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(chassis.Settings):
    """The catalog's own settings."""

    #: Seconds that a page of products may be served from the cache.
    list_cache_seconds: int = 300
    #: Seconds that one product may be served from the cache.
    detail_cache_seconds: int = 1800
