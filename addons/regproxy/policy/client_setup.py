"""Which clients the proxy can set up, by which door, and what may be asked of `/setup/<client>`.

    /setup/docker?door=mirror&no_proxy=10.0.0.0/8,.lan&fp=sha256:<64 hex digits>

Everything here ends in a shell script that somebody runs as root, so every value has a grammar of its own, whose
characters mean nothing to a shell, to YAML or to TOML, and whatever is not of it is an error.
"""

import enum
import re
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from regproxy.oci.names import HTTPS_PORT, parse_authority
from regproxy.oci.wording import shown
from regproxy.policy.interception import BUILT_IN_HOSTS, HostPattern, is_intercepted

MAX_EXCEPTIONS = 64
"""More entries of `no_proxy` are a mistake, and would make a line that some service managers cut."""

HUB = "docker.io"
"""Docker Hub as clients name it; `registry-1.docker.io` is where they ask."""
HUB_API = "registry-1.docker.io"

CLUSTER_EXCEPTIONS = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", ".svc", ".cluster.local")
"""What the networks of a Kubernetes cluster usually are: none of it is to go through a proxy."""

_NO_REGISTRIES = frozenset(BUILT_IN_HOSTS) - {HUB_API}
# A host or a part of one (`.lan`, `*.lan`), an address or a network; each with a port, perhaps.
_EXCEPTION = re.compile(
    r"\*|(?:\*?\.)?[a-z0-9_][a-z0-9_.-]{0,252}(?:/[0-9]{1,3}|:[0-9]{1,5})?|[0-9a-f:.]{2,45}(?:/[0-9]{1,3})?"
)
_FINGERPRINT = re.compile(r"(?:sha256:)?([0-9a-f]{64})")


class SetupDoor(enum.StrEnum):
    """How a client reaches the proxy."""

    PROXY = "proxy"
    """HTTPS_PROXY and our CA: every registry, and the client sees no difference."""
    MIRROR = "mirror"
    """A mirror in the client's own configuration: no CA, and without the proxy it asks the registry itself."""


@dataclass(frozen=True, slots=True)
class SetupClient:
    """One client that can be set up."""

    name: str
    """As in `/setup/<name>`."""
    title: str
    best_door: SetupDoor | None
    """What fits it best; None: its script looks at the host."""
    words: str
    """What a person has to know before choosing it."""
    is_document: bool = False
    """It gets a configuration to merge, not a script."""
    for_user: bool = False
    """It needs no root."""
    in_cluster: bool = False
    """The networks of a cluster must not go through the proxy."""

    @property
    def exceptions(self) -> tuple[str, ...]:
        """What must not go through the proxy besides this host and the proxy."""
        return CLUSTER_EXCEPTIONS if self.in_cluster else ()


_MIRROR, _PROXY = SetupDoor.MIRROR, SetupDoor.PROXY

CLIENTS: tuple[SetupClient, ...] = (
    SetupClient(
        "docker",
        "Docker Engine",
        None,
        "A mirror where Docker keeps images in containerd's store, else HTTPS_PROXY and the CA; restarts Docker.",
    ),
    SetupClient("containerd", "containerd", _MIRROR, "hosts.toml, for every registry.", in_cluster=True),
    SetupClient("crio", "CRI-O", _MIRROR, "A drop-in of registries.conf.", in_cluster=True),
    SetupClient(
        "podman",
        "podman, buildah and skopeo",
        _MIRROR,
        "A drop-in of registries.conf: for the machine as root, else for the user.",
        for_user=True,
    ),
    SetupClient("buildkit", "BuildKit and buildx", _MIRROR, "buildkitd, or a builder of buildx.", for_user=True),
    SetupClient("k3s", "k3s", _MIRROR, "registries.yaml; restarts k3s.", in_cluster=True),
    SetupClient("rke2", "RKE2", _MIRROR, "registries.yaml; restarts RKE2.", in_cluster=True),
    SetupClient(
        "kind",
        "kind",
        _MIRROR,
        "A configuration, and a loop over the nodes.",
        is_document=True,
        in_cluster=True,
    ),
    SetupClient("k3d", "k3d", _MIRROR, "A configuration for a new cluster.", is_document=True, in_cluster=True),
    SetupClient("minikube", "minikube", _MIRROR, "Files that every new node gets.", for_user=True, in_cluster=True),
    SetupClient("talos", "Talos", _MIRROR, "A patch of the machine configuration.", is_document=True, in_cluster=True),
    SetupClient(
        "openshift", "OpenShift", _MIRROR, "Mirror sets; they may reboot the nodes.", is_document=True, in_cluster=True
    ),
)
"""In the order in which they are listed."""

DOCTOR = "doctor"
"""What looks whether a client is set up right."""


def find_client(name: str) -> SetupClient | None:
    """Return the client of `/setup/<name>`, None if there is none."""
    return next((client for client in CLIENTS if client.name == name), None)


@dataclass(frozen=True, slots=True)
class BaseUrl:
    """The address by which a client reached the proxy, and by which it will."""

    scheme: str
    """`http` or `https`."""
    authority: str
    """`host`, `host:port`, `[IPv6]:port`, in normal form."""

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"

    @classmethod
    def parse(cls, scheme: str, authority: str) -> Self:
        """Read the Host field (RFC 9110 section 7.2); ValueError for what is no host with or without a port."""
        host, port = parse_authority(authority)
        shown_host = f"[{host}]" if ":" in host else host
        return cls("https" if scheme == "https" else "http", shown_host if port is None else f"{shown_host}:{port}")

    @property
    def host(self) -> str:
        """The host without port and brackets."""
        return parse_authority(self.authority)[0]


@dataclass(frozen=True, slots=True)
class SetupOptions:
    """The query of `/setup/<client>`."""

    door: SetupDoor | None = None
    exceptions: tuple[str, ...] = ()
    """Hosts and networks that are not to go through the proxy, besides the usual ones."""
    fingerprint: str = ""
    """The sha256 of the CA (over DER, 64 hex digits) that the client must find; empty: any."""

    @classmethod
    def parse(cls, query: str) -> Self:
        """Read `door`, `no_proxy` and `fp`; ValueError says in words what is wrong."""
        values: dict[str, str] = {}
        for key, value in urllib.parse.parse_qsl(query, keep_blank_values=True, max_num_fields=16):
            if key not in ("door", "no_proxy", "fp"):
                raise ValueError(f"{shown(key)} is not known here: there are door, no_proxy and fp")
            if key in values:
                raise ValueError(f"{key} is given twice")
            values[key] = value
        return cls(
            _door(values.get("door", "")), _exceptions(values.get("no_proxy", "")), _fingerprint(values.get("fp", ""))
        )

    def query(self) -> str:
        """Return the query that says the same, with its question mark, empty for nothing; it needs no escaping."""
        parts = {"door": self.door or "", "no_proxy": ",".join(self.exceptions), "fp": self.fingerprint}
        text = "&".join(f"{key}={value}" for key, value in parts.items() if value)
        return f"?{text}" if text else ""


def _door(text: str) -> SetupDoor | None:
    if not text:
        return None
    try:
        return SetupDoor(text)
    except ValueError:
        raise ValueError(f"door={shown(text)}: the doors are proxy and mirror") from None


def _exceptions(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(part.strip().lower() for part in text.split(",") if part.strip()))
    if len(found) > MAX_EXCEPTIONS:
        raise ValueError(f"no_proxy has {len(found)} entries, more than {MAX_EXCEPTIONS}: name networks, not hosts")
    for entry in found:
        if _EXCEPTION.fullmatch(entry) is None:
            raise ValueError(f"no_proxy: {shown(entry)} is not a host, an address or a network")
    return found


def _fingerprint(text: str) -> str:
    """Read it as openssl (colons between the bytes), as a digest, or bare."""
    if not text:
        return ""
    lowered = text.strip().lower()
    bare = lowered.removeprefix("sha256:").replace(":", "")
    match = _FINGERPRINT.fullmatch(bare)
    if match is None:
        raise ValueError(f"fp={shown(text)} is not the sha256 of a certificate: 64 hex digits")
    return match[1]


def client_registries(patterns: Iterable[HostPattern]) -> tuple[str, ...]:
    """Return the registries that the proxy serves as clients name them: for clients that have to list each one.

    Patterns that stand for many hosts are left out: such a client cannot be told of them.
    """
    return tuple(dict.fromkeys(_registry_names(tuple(patterns))))


def _registry_names(patterns: tuple[HostPattern, ...]) -> Iterator[str]:
    if is_intercepted(HUB_API, HTTPS_PORT, patterns):
        yield HUB
    for pattern in patterns:
        if pattern.tunnelled or pattern.is_wildcard or pattern.host in (*_NO_REGISTRIES, HUB_API, HUB):
            continue
        host = f"[{pattern.host}]" if ":" in pattern.host else pattern.host
        yield host if pattern.port is None else f"{host}:{pattern.port}"


def registry_to_test(registries: Iterable[str]) -> str:
    """Return the host that is asked to see whether requests reach the cache."""
    first = next(iter(registries), HUB)
    return HUB_API if first == HUB else first
