"""Which registry a request to the proxy's own address means: the mirror door.

Clients that know the proxy as a mirror ask it in three forms:

    /v2/<name>/manifests/<tag>?ns=quay.io        containerd and what builds on it
    /v2/quay.io/<name>/manifests/<tag>           podman, CRI-O, and whoever takes a mirror with a path
    /v2/<name>/manifests/<tag>                   Docker's `registry-mirrors`: the registry is the operator's default

`ns` is the distribution-spec's ("Registry Proxying"). BuildKit and k3s, told of a mirror with a path, send the first
two at once; then the host in the path is left out.

Whether a target is content at all is said by `regproxy.oci.endpoint`; where a registry may be reached, by
`regproxy.policy.addresses`.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote, unquote_plus

from regproxy.oci.endpoint import EndpointError
from regproxy.oci.errors import ErrorCode
from regproxy.oci.names import HTTPS_PORT, Registry, parse_authority
from regproxy.policy.interception import HostPattern, find_pattern, is_intercepted

HUB = Registry("registry-1.docker.io")
"""Where Docker Hub is: the cache knows it by this name, as clients ask for it through the proxy door."""

HUB_NAMES = frozenset({"docker.io", "index.docker.io", HUB.host})
"""What a client's `ns`, or the operator, may call it."""

_API = "/v2/"
_HTTP_PORT = 80

_SHORTEST_END = 3
"""Components behind a registry's host at least: a name of one component, `manifests`, a reference."""


@dataclass(frozen=True, slots=True)
class MirrorTarget:
    """A request target, parted into what is meant for the mirror and what for the registry."""

    namespace: str
    """The registry as the client calls it."""
    target: str
    """The request target at the registry itself, in origin-form."""


@dataclass(frozen=True, slots=True)
class Mirrored:
    """A registry that is mirrored."""

    registry: Registry
    plain_http: bool
    """It is spoken to without TLS."""


def is_api(target: str) -> bool:
    """Whether a request target is one of the registry API, and so the mirror door's."""
    return target.startswith(_API) or is_api_root(target)


def is_api_root(target: str) -> bool:
    """Whether a request target is the `/v2/` of the door itself, whatever `ns` it has (distribution-spec, end-1)."""
    return target.partition("?")[0] in ("/v2", _API)


def read_mirror_target(target: str, default_namespace: str) -> MirrorTarget:
    """Part a request target of the API.

    `default_namespace` is for requests that name no registry; empty for none. Raises EndpointError: NAME_UNKNOWN when
    no registry is named, NAME_INVALID when several are.
    """
    path, _, query = target.partition("?")
    namespace, query = _take_namespace(query)
    rest = path.removeprefix(_API)
    first, _, behind = rest.partition("/")
    host = unquote(first)
    if _looks_like_a_host(host) and behind.count("/") >= _SHORTEST_END - 1:
        if namespace is None:
            namespace, rest = host, behind
        elif _is_same_registry(host, namespace):
            rest = behind
    namespace = namespace or default_namespace
    if not namespace:
        raise EndpointError(ErrorCode.NAME_UNKNOWN, "the request names no registry, and DEFAULT_REGISTRY is empty")
    return MirrorTarget(namespace, f"{_API}{rest}?{query}" if query else f"{_API}{rest}")


def find_mirrored(namespace: str, patterns: Iterable[HostPattern]) -> Mirrored | None:
    """Return the registry that a client calls so, if it is one of the operator's.

    Without a port it is the one at 443; at 80 if the operator's entry has `http://`.
    """
    try:
        host, port = parse_authority(namespace)
    except ValueError:
        return None
    entries = tuple(patterns)
    for each in (HTTPS_PORT, _HTTP_PORT) if port is None else (port,):
        registry = _canonical(Registry(host, each))
        pattern = find_pattern(registry.host, registry.port, entries)
        if pattern is None or not is_intercepted(registry.host, registry.port, entries):
            continue
        if port is not None or pattern.plain_http == (each == _HTTP_PORT):
            return Mirrored(registry, pattern.plain_http)
    return None


def through_the_door(target: str, registry: Registry) -> str:
    """Return a target at a registry in the form that leads there through the mirror door, whoever asks."""
    return f"{_API}{registry}/{target.removeprefix(_API)}"


def _canonical(registry: Registry) -> Registry:
    return HUB if registry.host in HUB_NAMES and registry.port == HTTPS_PORT else registry


def _take_namespace(query: str) -> tuple[str | None, str]:
    """Return the value of `ns`, None without one, and the rest of the query, as it came."""
    named: set[str] = set()
    kept: list[str] = []
    for part in query.split("&"):
        key, _, value = part.partition("=")
        if unquote_plus(key) == "ns":
            named.add(unquote_plus(value))
        else:
            kept.append(part)
    if len(named) > 1:
        raise EndpointError(ErrorCode.NAME_INVALID, "the query names several registries")
    return next(iter(named), None), "&".join(kept)


def _looks_like_a_host(component: str) -> bool:
    """Whether a first component is a host, by the rule with which clients read the names of images."""
    return "." in component or ":" in component or component == "localhost"


def _is_same_registry(host: str, namespace: str) -> bool:
    try:
        return _canonical(Registry.parse(host)) == _canonical(Registry.parse(namespace))
    except ValueError:
        return False
