"""Variables of the predecessors that set nothing here: accepted without a word, because people have them set."""

from collections.abc import Mapping
from types import MappingProxyType

OBSOLETE: Mapping[str, str] = MappingProxyType(
    {
        "PROXY_REQUEST_BUFFERING": "uploads are always streamed",
        "PROXY_BUFFERING": "answers are always streamed",
        "PROXY_CONNECT_SEND_TIMEOUT": "it had none in the predecessor",
        "FORCE_UPSTREAM_HTTP_1_1": "upstreams are always asked by HTTP/1.1",
        "CA_SRL_FILE": "serial numbers are random",
        "KEY_SIZE_CA": "a new CA has a P-256 key",
        "KEY_SIZE_WEB": "leaves have P-256 keys",
        "CACHE_VALID_TIME": "content by digest is always valid, and tags have their tiers",
        **dict.fromkeys(
            (
                "CACHE_KEYS_ZONE",
                "CACHE_MANAGER_FILES",
                "CACHE_MANAGER_SLEEP",
                "CACHE_MANAGER_THRESHOLD",
                "CACHE_LOADER_FILES",
                "CACHE_LOADER_SLEEP",
                "CACHE_LOADER_THRESHOLD",
            ),
            "the cache is not nginx's",
        ),
        **dict.fromkeys(
            (
                "SLOW_TIER_URIS",
                "SLOW_CACHE_DIRECTORY",
                "SLOW_CACHE_MAX_SIZ",
                "SLOW_CACHE_MAX_SIZE",
                "SLOW_CACHE_MIN_FREE",
                "SLOW_CACHE_INACTIVE_TIME",
                "SLOW_CACHE_VALID_TIME",
                "SLOW_CACHE_KEYS_ZONE",
                "SLOW_CACHE_MANAGER_FILES",
                "SLOW_CACHE_MANAGER_SLEEP",
                "SLOW_CACHE_MANAGER_THRESHOLD",
                "SLOW_CACHE_LOADER_FILES",
                "SLOW_CACHE_LOADER_SLEEP",
                "SLOW_CACHE_LOADER_THRESHOLD",
            ),
            "there is no second cache, see SLOW_TIER_ENABLED",
        ),
        "LIVELINESS_REPOS": "`/readyz` tells whether the proxy can serve",
        "CURL_TIMEOUT": "`/readyz` tells whether the proxy can serve",
    }
)
"""Variable -> why it has no effect."""
