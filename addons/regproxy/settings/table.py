"""The one list of all settings: environment name, YAML key, default, meaning.

`loading` parses the defaults from here and the documentation is tested against it, so the three cannot differ.
The names and defaults are those of rpardini/docker-registry-proxy 0.7.0 where it has the setting.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One variable as an operator sees it."""

    variable: str
    default: str = ""
    """The text that is parsed when nothing is set."""
    default_note: str = "unset"
    """What the documentation says when `default` is empty."""
    meaning: str
    in_yaml: str | None = None
    """The YAML key; None: the variable in lower case; empty: not in the YAML file."""
    secret: bool = False
    """True: the value is never shown."""
    empty_counts: bool = False
    """True: an empty value is a value; otherwise it is as good as unset."""
    ignored: bool = False
    """True: accepted because the predecessor had it, and without effect."""

    @property
    def yaml_key(self) -> str:
        """The key in the YAML file; empty when it has none."""
        return self.variable.lower() if self.in_yaml is None else self.in_yaml


_NO_EFFECT = "Accepted, no effect: "

SETTINGS_TABLE: tuple[Setting, ...] = (
    Setting(variable="CONFIG_FILE", in_yaml="", meaning="YAML file with these settings; the environment wins over it"),
    Setting(variable="LISTEN_HOST", default_note="all addresses", meaning="Address to listen on"),
    Setting(
        variable="LISTEN_PORT",
        default="3128",
        meaning="Port of everything: proxy, CA certificate, set-up script, health",
    ),
    Setting(
        variable="CACHE_DIRECTORY",
        default="/docker_mirror_cache",
        meaning="Where content is kept; created with mode 0700",
    ),
    Setting(
        variable="CACHE_MAX_SIZE",
        default="32g",
        meaning="Most bytes the cache may use; the least recently used goes first",
    ),
    Setting(variable="CACHE_INACTIVE", default="60d", meaning="Content that was not read for so long is removed"),
    Setting(
        variable="OLD_CACHE",
        default="copy",
        meaning="A predecessor's (nginx) cache in `CACHE_DIRECTORY`: `copy` takes its content over and leaves its "
        "files, `move` removes what was taken over, `ignore` does not look",
    ),
    Setting(variable="CA_DIRECTORY", default="/ca", meaning="Where the CA is kept; a new one is made if it is empty"),
    Setting(variable="CA_CRT_FILE", default_note="`ca.crt` in `CA_DIRECTORY`", meaning="Certificate of the CA (PEM)"),
    Setting(variable="CA_KEY_FILE", default_note="`ca.key` in `CA_DIRECTORY`", meaning="Private key of the CA (PEM)"),
    Setting(
        variable="CERT_PASSWORD",
        secret=True,
        meaning="Passphrase of the CA key; without one, plain keys and the passphrase `foobar` are tried",
    ),
    Setting(
        variable="REGISTRIES",
        default="registry.k8s.io gcr.io quay.io ghcr.io",
        meaning="Hosts to cache besides Docker Hub: `host`, `host:port`, `*.host`, `http://host:port`; a list",
    ),
    Setting(
        variable="AUTH_REGISTRIES",
        in_yaml="credentials",
        secret=True,
        empty_counts=True,
        meaning="Logins `host:user:password` or `host/path:user:password` of registries or their token servers; the "
        "hosts are cached, too",
    ),
    Setting(
        variable="AUTH_REGISTRIES_DELIMITER",
        in_yaml="",
        default=" ",
        meaning="What stands between two logins; a blank means any blanks and line ends",
    ),
    Setting(
        variable="AUTH_REGISTRY_DELIMITER",
        in_yaml="",
        default=":",
        meaning="What stands between host, user and password",
    ),
    Setting(
        variable="AUTH_CONFIG_FILE",
        meaning="Docker's `config.json`, or the folder of a mounted Kubernetes secret; read again when it changes",
    ),
    Setting(
        variable="VERIFY_SSL",
        default="true",
        meaning="Verify the certificates of upstreams; any other text than `true` turns it off for all",
    ),
    Setting(
        variable="UPSTREAM_CA_FILE", meaning="PEM bundle of authorities that upstreams may use besides the system's"
    ),
    Setting(
        variable="TRUSTED_HOSTS",
        meaning="Hosts that redirects and token realms may name although they are at a private or loopback address",
    ),
    Setting(
        variable="UPSTREAM_MAPPINGS",
        meaning="Where a name is really reached: `name=address` or `name=address:port`, a list",
    ),
    Setting(variable="DISABLE_IPV6", default="false", meaning="Reach upstreams by IPv4 only"),
    Setting(variable="DOWNLOAD_CONNECTIONS", default="4", meaning="Most connections for one large blob; 1 to 64"),
    Setting(variable="DOWNLOAD_PART_SIZE", default="16m", meaning="Least part of a blob that gets its own connection"),
    Setting(
        variable="ENABLE_MANIFEST_CACHE",
        default="false",
        meaning="`true`: a tag is answered from the cache for the time of its tier; else each use asks the registry",
    ),
    Setting(
        variable="MANIFEST_CACHE_PRIMARY_REGEX",
        default="(stable|nightly|production|test)",
        empty_counts=True,
        meaning="Tags of the first tier (start of the tag); empty removes the tier",
    ),
    Setting(variable="MANIFEST_CACHE_PRIMARY_TIME", default="10m", meaning="How long tags of the first tier are fresh"),
    Setting(
        variable="MANIFEST_CACHE_SECONDARY_REGEX",
        default=r"(.*)(\d|\.)+(.*)(\d|\.)+(.*)(\d|\.)+",
        empty_counts=True,
        meaning="Tags of the second tier (start of the tag); empty removes the tier",
    ),
    Setting(
        variable="MANIFEST_CACHE_SECONDARY_TIME", default="60d", meaning="How long tags of the second tier are fresh"
    ),
    Setting(variable="MANIFEST_CACHE_DEFAULT_TIME", default="1h", meaning="How long all other tags are fresh"),
    Setting(
        variable="ALLOW_PUSH", default="false", meaning="`true`: pushes pass through; else writing methods get 405"
    ),
    Setting(variable="SEND_TIMEOUT", default="60s", meaning="Longest pause between two writes to a client"),
    Setting(
        variable="CLIENT_BODY_TIMEOUT",
        default="60s",
        meaning="Longest pause between two reads of a request body; no effect yet",
    ),
    Setting(
        variable="CLIENT_HEADER_TIMEOUT",
        default="60s",
        meaning="Longest time for a request head to arrive; no effect yet",
    ),
    Setting(
        variable="KEEPALIVE_TIMEOUT",
        default="300s",
        meaning="How long a client's connection may stay without a request",
    ),
    Setting(variable="PROXY_CONNECT_TIMEOUT", default="60s", meaning="Longest time to connect to an upstream"),
    Setting(
        variable="PROXY_SEND_TIMEOUT",
        default="60s",
        meaning="Longest pause between two writes to an upstream; no effect yet",
    ),
    Setting(variable="PROXY_READ_TIMEOUT", default="60s", meaning="Longest pause between two reads from an upstream"),
    Setting(
        variable="PROXY_CONNECT_CONNECT_TIMEOUT",
        default="60s",
        meaning="Longest time to connect for a tunnel to other hosts; no effect yet",
    ),
    Setting(
        variable="PROXY_CONNECT_READ_TIMEOUT",
        default="60s",
        meaning="Longest silence in a tunnel to other hosts; no effect yet",
    ),
    Setting(
        variable="DEBUG",
        default="false",
        meaning="`true`: show the requests of clients in a web interface on port 8081",
    ),
    Setting(
        variable="DEBUG_HUB",
        default="false",
        meaning="`true`: show our own requests to upstreams, too; the interface is on port 8082 then",
    ),
    Setting(
        variable="DEBUG_PASSWORD",
        default_note="made at start and printed",
        secret=True,
        meaning="Password of the web interface; at least 8 characters",
    ),
    Setting(
        variable="DEBUG_PASSWORD_FILE",
        in_yaml="",
        meaning="File with the password of the web interface",
    ),
    Setting(
        variable="DEBUG_NGINX", default="false", meaning="`true`: log at level DEBUG (the name is the predecessor's)"
    ),
    Setting(
        variable="PROXY_REQUEST_BUFFERING",
        in_yaml="",
        default="true",
        ignored=True,
        meaning=f"{_NO_EFFECT}uploads are always streamed",
    ),
    Setting(
        variable="PROXY_CONNECT_SEND_TIMEOUT",
        in_yaml="",
        default="60s",
        ignored=True,
        meaning=f"{_NO_EFFECT}it had none in the predecessor",
    ),
    Setting(
        variable="CA_SRL_FILE",
        in_yaml="",
        default_note="`ca.srl` in `CA_DIRECTORY`",
        ignored=True,
        meaning=f"{_NO_EFFECT}serial numbers are random",
    ),
)

BY_VARIABLE: Mapping[str, Setting] = MappingProxyType({setting.variable: setting for setting in SETTINGS_TABLE})
BY_YAML_KEY: Mapping[str, Setting] = MappingProxyType({row.yaml_key: row for row in SETTINGS_TABLE if row.yaml_key})


def markdown_rows() -> tuple[str, ...]:
    """Return the table of the README, one line each, with its two head lines."""
    head = ("| Variable | Default | Meaning |", "| --- | --- | --- |")
    return head + tuple(f"| `{row.variable}` | {_markdown_default(row)} | {row.meaning} |" for row in SETTINGS_TABLE)


def _markdown_default(setting: Setting) -> str:
    if not setting.default:
        return setting.default_note
    if not setting.default.strip():
        return "one blank"
    # A bar would end the cell even in a code span.
    return f"`{setting.default.replace('|', r'\|')}`"
