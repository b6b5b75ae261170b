"""What each part is told: the settings, in the words of mitmproxy, of the upstream client and of the connections."""

import dataclasses
import logging
import socket
from collections.abc import Iterable, Iterator

from regproxy.engine.time_limits import TimeLimits
from regproxy.origin.authorized import AuthorizedUpstream
from regproxy.origin.client import UpstreamOptions
from regproxy.origin.credential_source import CredentialSource
from regproxy.origin.observer import Observer
from regproxy.origin.resolver import Lookup, is_own_port, system_lookup
from regproxy.policy.interception import HostPattern
from regproxy.policy.upstream_proxy import ForwardProxy
from regproxy.settings import Settings
from regproxy.shared.tier import SharedTier
from regproxy.stack.version import VERSION
from regproxy.store.content import Store
from regproxy.store.crew.sharing import Sharing

NEVER_S = 10 * 365 * 86400
"""An inactivity limit that no connection meets."""

COMMIT_S = 900.0
"""What the predecessor gave every answer, whatever PROXY_READ_TIMEOUT was; here the answers to writes have it."""

SYSTEM_CA_DIRECTORY = "/etc/ssl/certs"
"""Where Debian, Alpine and SUSE keep the system's authorities by hash."""


def mitmproxy_options(settings: Settings) -> dict[str, object]:
    """Return mitmproxy's options for this job; each differs from its default for the reason given."""
    options: dict[str, object] = {
        "listen_host": settings.listen_host,
        "listen_port": settings.listen_port,
        "connection_strategy": "lazy",  # eager: CONNECT fails when the upstream is down and no addon is ever asked
        "upstream_cert": False,  # true: leaves copy the names of upstream certificates
        "http2": False,  # the sender writes past HTTP's framing
        "http3": False,
        "onboarding": False,  # mitm.it: a second place that hands out a CA
        "block_global": False,  # true: nodes with public addresses could not pull
        "ssl_insecure": not settings.verify_ssl,
        "tcp_timeout": NEVER_S,  # `engine.time_limits` knows what a connection waits for
        "flow_detail": 0,  # the access log has one line a request
    }
    if settings.upstream_ca_file is not None:
        options["ssl_verify_upstream_trusted_ca"] = str(settings.upstream_ca_file)
        options["ssl_verify_upstream_trusted_confdir"] = SYSTEM_CA_DIRECTORY
    return options


def time_limits(settings: Settings) -> TimeLimits:
    """Return the limits of connections under the engine's names."""
    return TimeLimits(
        client_header_s=settings.client_header_timeout_s,
        client_body_s=settings.client_body_timeout_s,
        keepalive_s=settings.keepalive_timeout_s,
        send_s=settings.send_timeout_s,
        upstream_connect_s=settings.proxy_connect_timeout_s,
        upstream_send_s=settings.proxy_send_timeout_s,
        upstream_read_s=settings.proxy_read_timeout_s,
        upstream_commit_s=max(settings.proxy_read_timeout_s, COMMIT_S) if settings.proxy_read_timeout_s else 0.0,
        tunnel_connect_s=settings.proxy_connect_connect_timeout_s,
        tunnel_silence_s=settings.proxy_connect_read_timeout_s,
    )


def make_upstream(
    settings: Settings, credentials: CredentialSource, lookup: Lookup = system_lookup, observer: Observer | None = None
) -> AuthorizedUpstream:
    """Return the HTTP client, not opened, with the operator's credentials."""
    options = dataclasses.replace(upstream_options(settings), lookup=lookup)
    return AuthorizedUpstream(options, credentials, settings.trusted_hosts, observer)


def make_shared_tier(settings: Settings, store: Store, sharing: Sharing | None = None) -> SharedTier | None:
    """Return the bucket behind the store, which is open, if the operator has one. Raises TierError."""
    if settings.store_url is None:
        return None
    return SharedTier.open(
        store,
        settings.store_url,
        settings.store_key,
        settings.access_ttl_s,
        settings.upstream_ca_file,
        None if sharing is None else sharing.claim,
    )


def upstream_options(settings: Settings) -> UpstreamOptions:
    """Return what the origin room needs of the settings."""
    return UpstreamOptions(
        verify_tls=settings.verify_ssl,
        ca_file=settings.upstream_ca_file,
        mappings=settings.upstream_mappings,
        listed=settings.known_hosts,
        ipv4_only=settings.disable_ipv6,
        connect_timeout_s=settings.proxy_connect_timeout_s,
        read_timeout_s=settings.proxy_read_timeout_s,
        unverified=settings.verify_ssl_except,
        proxies=settings.upstream_proxies,
        offline=settings.offline,
    )


def without_own_proxies(settings: Settings) -> Settings:
    """Leave out an upstream proxy that is this proxy itself: an environment meant for its clients would make a loop."""
    own = [proxy for proxy in settings.upstream_proxies.proxies if _leads_here(proxy, settings.listen_port)]
    warnings = (f"{proxy} of HTTPS_PROXY or HTTP_PROXY is this proxy itself and is not used" for proxy in own)
    return dataclasses.replace(
        settings,
        upstream_proxies=settings.upstream_proxies.without(own),
        warnings=settings.warnings + tuple(dict.fromkeys(warnings)),
    )


def _leads_here(proxy: ForwardProxy, listen_port: int) -> bool:
    try:
        found = socket.getaddrinfo(proxy.host, proxy.port, type=socket.SOCK_STREAM)
    except OSError:
        return False  # it may have an address later
    return any(is_own_port(str(entry[4][0]), proxy.port, {listen_port}) for entry in found)


def summary(settings: Settings) -> str:
    """Return the line that says at start what this proxy does: doors, cache, and every mode that is on."""
    parts = (
        f"registry-proxy {VERSION} listens on {settings.listen_host or '*'}:{settings.listen_port}",
        f"intercepts Docker Hub and {_listed(settings.registries) or 'nothing else'}",
        _mirror_door(settings),
        _cache(settings),
        f"tags {'by tier' if settings.enable_manifest_cache else 'revalidated at every pull'}",
        f"pushes {_pushes(settings)}",
        f"logins by AUTH_PRECEDENCE={settings.auth_precedence}",
        *_modes(settings),
    )
    return "; ".join(parts)


def _listed(patterns: Iterable[HostPattern]) -> str:
    return " ".join(str(pattern) for pattern in patterns)


def _cache(settings: Settings) -> str:
    own = f"caches up to {settings.cache_max_size_bytes} bytes in {settings.cache_directory}"
    return f"{own}, shares them in {settings.store_url}" if settings.store_url else own


def _mirror_door(settings: Settings) -> str:
    served = settings.mirrored
    if not served:
        return "the mirror door is closed"
    tls = ", by https too" if settings.mirror_tls else ""
    same = settings.mirror_registries is None
    return f"is a mirror of {'the same registries' if same else _listed(served)}{tls}"


def _pushes(settings: Settings) -> str:
    if settings.allow_push:
        return "allowed"
    return "allowed with a login of their own" if settings.allow_push_with_own_auth else "refused"


def _modes(settings: Settings) -> Iterator[str]:
    """Yield what an operator should know is on, or would wonder about."""
    if settings.proxy_logins:
        yield "clients need a login (PROXY_AUTH)"
    if settings.offline:
        yield "OFFLINE is set: no registry is asked"
    if not settings.verify_ssl:
        yield "VERIFY_SSL is off: upstreams can be anyone"
    if settings.debug_ports:
        yield f"debug mode on port {' and '.join(map(str, settings.debug_ports))}"
    if settings.least_level <= logging.DEBUG:
        yield "log level DEBUG"
