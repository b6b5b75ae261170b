"""The result of reading the settings: one frozen, typed object, and the error that lists what is wrong with them.

Defaults are not repeated here: `load_settings({})` is the default object, made from `table`.
"""

import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from regproxy.policy.access import PrivateImages
from regproxy.policy.adoption import OldCache
from regproxy.policy.bucket_address import BucketAddress
from regproxy.policy.credentials import Credential
from regproxy.policy.image_rules import ImageRule, Network
from regproxy.policy.interception import HostPattern
from regproxy.policy.mappings import UpstreamMapping
from regproxy.policy.mirror import HUB
from regproxy.policy.precedence import Precedence
from regproxy.policy.proxy_logins import ProxyLogin
from regproxy.policy.tiers import Tier
from regproxy.policy.upstream_proxy import ProxyPlan


class Compat(StrEnum):
    """Which predecessor's names are used where the predecessors differ."""

    RPARDINI = "rpardini"
    GMARCY = "gmarcy"


class LogFormat(StrEnum):
    """What the lines of the log look like."""

    AUTO = "auto"
    """For people on a terminal, else for programs."""
    JSON = "json"
    TEXT = "text"


class LogLevel(StrEnum):
    """The least level of messages that are printed."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


DEBUG_PORT = 8081
DEBUG_HUB_PORT = 8082


class SettingsError(ValueError):
    """Settings that cannot be used: `problems` has one line each, which names the variable, its value and the reason.

    The value of a secret is never part of a line.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems: tuple[str, ...] = tuple(problems)
        super().__init__("\n".join(self.problems))


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the operator asked for, checked and in the units of the code."""

    listen_host: str
    """Address to listen on; empty means every address of the machine."""
    listen_port: int
    cache_directory: Path
    workers: int
    """How many processes share the work; 0 means one for each core."""
    ca_directory: Path
    ca_certificate_file: Path
    ca_key_file: Path
    cert_password: str = field(repr=False)
    """Passphrase of an encrypted CA key; empty means none was given."""
    ca_name_constraints: bool
    """True: a new CA can sign for the hosts of `registries` only."""
    ca_rotation: bool
    """True: the next CA is made before one ends, and takes over by itself."""
    cache_max_size_bytes: int
    cache_inactive_s: float
    """Content that was not read for so long is removed."""
    old_cache: OldCache
    """What becomes of an nginx predecessor's cache in the cache directory."""
    cache_min_free_bytes: int
    """Free space that the cache leaves on its disk."""
    store_url: BucketAddress | None
    """The bucket behind the cache, shared with other proxies."""
    store_key: str = field(repr=False)
    """What its records are sealed with; empty for what the AWS credentials give."""
    registries: tuple[HostPattern, ...]
    """Hosts to intercept besides the built-in ones, and exceptions; the hosts of `credentials` are among them."""
    mirror_registries: tuple[HostPattern, ...] | None
    """What the mirror door serves; None is Docker Hub and `registries`, nothing closes it."""
    default_registry: str
    """What a mirror client means that names no registry; empty for none."""
    mirror_tls: bool
    """True: the mirror door takes TLS, too."""
    credentials: tuple[Credential, ...]
    auth_config_file: Path | None
    """Docker's config.json, or a directory with it or with a Kubernetes `.dockerconfigjson`."""
    auth_precedence: Precedence
    """Whose credentials come first, a client's own or the operator's."""
    verify_ssl: bool
    verify_ssl_except: tuple[HostPattern, ...]
    """Upstreams whose certificates are not verified although `verify_ssl` is on."""
    upstream_ca_file: Path | None
    """PEM bundle of authorities that upstreams may use besides the system's."""
    trusted_hosts: tuple[HostPattern, ...]
    """Hosts that redirects and token realms may name although they resolve to a private or loopback address."""
    upstream_mappings: tuple[UpstreamMapping, ...]
    disable_ipv6: bool
    """True: upstreams are reached by IPv4 only."""
    nameservers: tuple[str, ...]
    """IP addresses of the name servers for upstreams; empty means the system's."""
    upstream_proxies: ProxyPlan
    download_connections: int
    """Most connections over which one blob is fetched."""
    download_part_bytes: int
    """Least size of the part of a blob that is worth a connection."""
    enable_manifest_cache: bool
    tiers: tuple[Tier, ...]
    """Tag tiers in the order in which they are tried; the last one, `default`, takes every tag."""
    offline: bool
    """True: no upstream is asked for anything; tunnels to hosts that are not intercepted stay."""
    not_found_s: float
    """How long a 404 for a manifest or blob is not asked about again; 0 asks each time."""
    allow_push: bool
    allow_push_with_own_auth: bool
    """True: pushes of clients that send an Authorization pass through."""
    proxy_logins: tuple[ProxyLogin, ...]
    """Who may use the proxy; empty means everybody."""
    private_images: PrivateImages
    """What becomes of content that only some clients may read at its registry."""
    access_ttl_s: float
    """How long an answer that lets a client read counts."""
    access_grace_s: float
    """How long it counts while the registry gives no answer."""
    allow_clients: tuple[Network, ...]
    """Who may use the proxy; empty means everybody."""
    image_rules: tuple[ImageRule, ...]
    """Which images are served; the first that fits decides."""
    readiness_window_s: float
    """Images that were pulled within it are those in use."""
    admin_token: str = field(repr=False)
    """What opens the admin API; empty: whoever is on this machine."""
    admin_hosts: frozenset[str]
    """Names in a Host field with which the admin API is asked, in normal form."""
    send_timeout_s: float
    """Longest pause between two writes to a client."""
    client_body_timeout_s: float
    """Longest pause between two reads of a request body."""
    client_header_timeout_s: float
    """Longest time for a request head to arrive."""
    keepalive_timeout_s: float
    """Longest time a client's connection may stay without a request."""
    drain_timeout_s: float
    """How long answers may take to end after TERM; 0 cuts them."""
    max_connections: int
    """Of clients; 0 is as many as files can be opened for."""
    max_connections_per_client: int
    """From one address; 0 is no limit."""
    proxy_connect_timeout_s: float
    """Longest time to connect to an upstream."""
    proxy_send_timeout_s: float
    """Longest pause between two writes to an upstream."""
    proxy_read_timeout_s: float
    """Longest pause between two reads from an upstream: an idle limit, not a limit of the whole answer."""
    proxy_connect_connect_timeout_s: float
    """Longest time to connect for a blind tunnel."""
    proxy_connect_read_timeout_s: float
    """Longest silence in a blind tunnel."""
    compat: Compat
    debug: bool
    """True: the web interface runs on `DEBUG_PORT`."""
    debug_hub: bool
    """True: it shows our own upstream requests too, and runs on `DEBUG_HUB_PORT`."""
    debug_password: str = field(repr=False)
    """What lets people into the web interface; empty means that one is made at every start."""
    debug_nginx: bool
    """True: our own log level is DEBUG (the name is the predecessor's)."""
    log_format: LogFormat
    log_level: LogLevel
    """As asked for; `debug_nginx` wins (`least_level`)."""
    warnings: tuple[str, ...]
    """One line for each setting that was read with doubt; no line contains a secret."""

    @property
    def least_level(self) -> int:
        """The least level of messages that are printed, as `logging` has it."""
        return logging.DEBUG if self.debug_nginx else logging.getLevelNamesMapping()[self.log_level.upper()]

    @property
    def mirrored(self) -> tuple[HostPattern, ...]:
        """What the mirror door serves."""
        return (HostPattern(HUB.host), *self.registries) if self.mirror_registries is None else self.mirror_registries

    @property
    def known_hosts(self) -> tuple[HostPattern, ...]:
        """Registries of either door, and trusted hosts: the operator's word that their addresses are all right."""
        mirrored = (each for each in self.mirror_registries or () if not each.tunnelled)
        return (*self.registries, *mirrored, *self.trusted_hosts)

    @property
    def debug_ports(self) -> tuple[int, ...]:
        """The ports of the web interface; without one, the program is mitmdump."""
        return (DEBUG_PORT,) * self.debug + (DEBUG_HUB_PORT,) * self.debug_hub
