"""The one list of all settings: environment name, YAML key, default, meaning.

`loading` parses the defaults from here and the documentation is tested against it, so the three cannot differ.
The names and defaults are those of rpardini/docker-registry-proxy 0.7.0 where it has the setting.
"""

from collections.abc import Mapping
from types import MappingProxyType

from regproxy.settings.limits import LIMITS
from regproxy.settings.obsolete import OBSOLETE
from regproxy.settings.setting import Setting

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
    Setting(
        variable="CACHE_INACTIVE",
        default="60d",
        aliases=("CACHE_INACTIVE_TIME",),
        meaning="Content that was not read for so long is removed",
    ),
    Setting(
        variable="CACHE_MIN_FREE",
        default="1g",
        meaning="Free space that the cache leaves on its disk: least recently used content goes; 0 for none",
    ),
    Setting(
        variable="OLD_CACHE",
        default="copy",
        meaning="A predecessor's (nginx) cache in `CACHE_DIRECTORY`: `copy` takes its content over and leaves its "
        "files, `move` removes what was taken over, `ignore` does not look",
    ),
    Setting(
        variable="STORE_URL",
        meaning="A bucket that several proxies share behind their own caches: "
        "`s3://bucket/prefix?endpoint=https://host&region=name` (`docs/shared-store.md`)",
        secret=True,
    ),
    Setting(
        variable="STORE_KEY",
        default_note="made from `AWS_SECRET_ACCESS_KEY`",
        secret=True,
        meaning="What the records in that bucket are sealed with; the same random text at all replicas",
    ),
    Setting(
        variable="WORKERS",
        default="1",
        aliases=("WORKER_PROCESSES",),
        meaning="Processes that share the port and the cache, up to 64; `auto`: one for each core that the proxy may "
        "use; see [docs/workers.md](docs/workers.md)",
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
        variable="CA_NAME_CONSTRAINTS",
        default="false",
        meaning="`true`: a new CA can sign for Docker Hub and the hosts of `REGISTRIES` only, and is no use to a thief "
        "for others",
    ),
    Setting(
        variable="CA_ROTATION",
        default="true",
        meaning="`true`: 90 days before a CA ends that was made here the next one is made and served beside it; a next "
        "CA takes over 14 days before the end",
    ),
    Setting(
        variable="REGISTRIES",
        default="registry.k8s.io gcr.io quay.io ghcr.io",
        meaning="Hosts to cache besides Docker Hub: `host`, `host:port`, `*.host`, `http://host:port`; "
        "`-host` is never intercepted; a list",
    ),
    Setting(
        variable="MIRROR_REGISTRIES",
        default_note="Docker Hub and `REGISTRIES`",
        meaning="Registries that clients may pull from with the proxy as their mirror, written as in `REGISTRIES`, "
        "Docker Hub as `docker.io`; `none` closes the mirror door; a list",
    ),
    Setting(
        variable="DEFAULT_REGISTRY",
        default="docker.io",
        meaning="Registry that a mirror client means when it names none (Docker's `registry-mirrors`); `none` for none",
    ),
    Setting(
        variable="MIRROR_TLS",
        default="false",
        meaning="`true`: mirror clients may use `https`, too, with a certificate of the proxy's CA",
    ),
    Setting(
        variable="AUTH_REGISTRIES",
        in_yaml="credentials",
        secret=True,
        empty_counts=True,
        meaning="Logins `host:user:password` of registries or their token servers, `host/path:user:password` for the "
        "repositories below a path; the hosts are cached, too",
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
        variable="AUTH_PRECEDENCE",
        default="client",
        meaning="Whose login a read shows: `client` its own if it has one; `client-then-proxy` ours after its own was "
        "refused; `proxy` ours wherever there is one",
    ),
    Setting(
        variable="ALLOW_OWN_AUTH",
        in_yaml="",
        default_note="as `AUTH_PRECEDENCE`",
        meaning="A fork's name: `false` is `AUTH_PRECEDENCE=proxy`, `true` is `client`; `AUTH_PRECEDENCE` wins over it",
    ),
    Setting(
        variable="VERIFY_SSL",
        default="true",
        meaning="Verify the certificates of upstreams; any other text than `true` turns it off for all",
    ),
    Setting(
        variable="VERIFY_SSL_EXCEPT",
        meaning="Upstreams whose certificates are not verified: `host`, `host:port`, `*.host`; a list",
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
    Setting(
        variable="HTTPS_PROXY",
        secret=True,
        aliases=("https_proxy",),
        meaning="Proxy through which `https` upstreams and tunnels are reached: `http://[user:password@]host:port`",
    ),
    Setting(
        variable="HTTP_PROXY",
        secret=True,
        aliases=("http_proxy",),
        meaning="The same for plain `http` upstreams",
    ),
    Setting(
        variable="NO_PROXY",
        aliases=("no_proxy",),
        meaning="Reached without that proxy: `host` and what is below it, `.host`, `host:port`, addresses, networks "
        "`10.0.0.0/8`, `*`; loopback and mapped names always are",
    ),
    Setting(
        variable="RESOLVERS_FILE",
        default="/etc/nginx/resolvers.conf",
        meaning="Name servers for upstreams in the predecessor's form, if it exists: `resolver 10.0.0.2 ipv6=off;`",
    ),
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
        variable="OFFLINE",
        default="false",
        meaning="`true`: registries and token servers are never asked; what is stored is served whatever its age",
    ),
    Setting(
        variable="NOT_FOUND_TIME",
        default="10s",
        meaning="How long a tag, manifest or blob that the registry does not have is not asked for again; "
        "0 to `60s`; a push through the proxy ends it",
    ),
    Setting(
        variable="ALLOW_PUSH", default="false", meaning="`true`: pushes pass through; else writing methods get 405"
    ),
    Setting(
        variable="ALLOW_PUSH_WITH_OWN_AUTH",
        default="false",
        meaning="`true`: pushes pass through if the client sends credentials of its own",
    ),
    Setting(
        variable="PROXY_AUTH",
        secret=True,
        meaning="Logins that clients need to use the proxy: `user:password`, or lines of `htpasswd -B`; a list",
    ),
    Setting(
        variable="PRIVATE_IMAGES",
        default="strict",
        meaning="`strict`: what only some logins may read at its registry is served from the cache only to them; "
        "`share`: to everybody who reaches the proxy",
    ),
    Setting(
        variable="ACCESS_TTL",
        default="5m",
        meaning="How long a registry's answer that a client may read a repository counts without being asked for again",
    ),
    Setting(
        variable="ACCESS_GRACE",
        default="24h",
        meaning="How long it counts while the registry gives no answer",
    ),
    Setting(
        variable="ALLOW_CLIENTS",
        default_note="everybody",
        meaning="Who may use the proxy: networks (`10.0.0.0/8`) and addresses, a list; the proxy's own pages stay open",
    ),
    Setting(
        variable="IMAGE_RULES",
        default_note="every image",
        meaning="Which images are served, and to whom; the first rule that fits decides, and what none fits is served: "
        "`allow docker.io/library/*`, `allow quay.io/secret/* from 10.1.0.0/16`, `deny *`; parted by `;` or line ends",
    ),
    Setting(
        variable="READINESS_WINDOW",
        default="30d",
        meaning="Images that were pulled within it are looked after: would they come from the cache in an outage?",
    ),
    Setting(
        variable="ADMIN_TOKEN",
        secret=True,
        default_note="only from this machine",
        meaning="What opens the admin API, `Authorization: Bearer`; at least 16 characters",
    ),
    Setting(variable="ADMIN_HOSTS", meaning="Names of the proxy by which the admin API may be asked for; a list"),
    *LIMITS,
    Setting(
        variable="COMPAT",
        default="rpardini",
        meaning="`gmarcy`: response fields `X-Container-Registry-Proxy-*`, cache in `/registry_proxy_mirror_cache`",
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
        variable="DEBUG_NGINX", default="false", meaning="`true`: log at level DEBUG (the name is the predecessor's)"
    ),
    Setting(
        variable="LOG_FORMAT",
        default="auto",
        meaning="`json`: one object a line; `text`: words and, on a terminal, colours (`NO_COLOR` turns them off); "
        "`auto`: `text` on a terminal, else `json`",
    ),
    Setting(
        variable="LOG_LEVEL",
        default="info",
        meaning="Least level of messages on standard error: `debug`, `info`, `warning`, `error`; the access log on "
        "standard output is always written",
    ),
    Setting(
        variable="SLOW_TIER_ENABLED",
        in_yaml="",
        default="false",
        ignored=True,
        meaning=f"{_NO_EFFECT}content is kept once for each digest, in one directory, whichever URI asked for it",
    ),
    *(
        Setting(variable=variable, in_yaml="", ignored=True, meaning=f"{_NO_EFFECT}{reason}")
        for variable, reason in OBSOLETE.items()
    ),
)

BY_VARIABLE: Mapping[str, Setting] = MappingProxyType({setting.variable: setting for setting in SETTINGS_TABLE})
BY_YAML_KEY: Mapping[str, Setting] = MappingProxyType({row.yaml_key: row for row in SETTINGS_TABLE if row.yaml_key})
