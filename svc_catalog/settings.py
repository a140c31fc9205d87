"""The settings of svc_catalog."""

from dataclasses import dataclass

import chassis


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings(chassis.Settings):
    """Settings beyond those of every service."""

    #: Seconds that a page of products is served from the cache.
    list_cache_seconds: int = 300
    #: Seconds that one product is served from the cache.
    detail_cache_seconds: int = 1800
