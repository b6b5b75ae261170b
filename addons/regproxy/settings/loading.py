"""From raw texts to `Settings`: every variable is parsed once, and all problems are told at once.

Numbers, sizes, times, ports and paths that cannot be read are errors. What the predecessor only stumbled over (a
malformed login, host or pattern in its lists, a boolean in other words) is a warning, so that a set-up that worked
with it starts here. Whether the port is free or a directory can be written is `preflight`'s question, not asked here.
"""

import re
from collections.abc import Callable, Mapping
from enum import StrEnum
from pathlib import Path

from regproxy.oci.names import normalise_host
from regproxy.policy.credentials import Credential
from regproxy.policy.image_rules import ImageRule, parse_network, without_effect
from regproxy.policy.interception import HostPattern, is_intercepted
from regproxy.policy.mappings import UpstreamMapping
from regproxy.policy.precedence import Precedence
from regproxy.policy.proxy_logins import ProxyLogin
from regproxy.policy.tiers import Tier, TierName
from regproxy.policy.upstream_proxy import ForwardProxy, ProxyException, ProxyPlan
from regproxy.settings import grammar
from regproxy.settings.credentials import (
    CredentialEntryError,
    parse_credential_list,
    parse_yaml_credential,
    refuse_second_login,
)
from regproxy.settings.model import Compat, LogFormat, LogLevel, Settings, SettingsError
from regproxy.settings.resolvers import Resolvers, parse_resolvers
from regproxy.settings.sources import Raw, Sources, read_sources
from regproxy.settings.table import BY_VARIABLE
from regproxy.settings.words import (
    parse_host,
    parse_mirrored,
    parse_not_found_s,
    parse_password,
    parse_registry,
    parse_store_key,
    parse_store_url,
    reason,
)

_HTTPS_PORT = 443
_GMARCY_CACHE_DIRECTORY = Path("/registry_proxy_mirror_cache")


def load_settings(environ: Mapping[str, str]) -> Settings:
    """Return the settings of the environment and of the YAML file that CONFIG_FILE names.

    Raises SettingsError, which has one line for each value that cannot be used.
    """
    reader = _Reader(read_sources(environ))
    settings = reader.settings()
    if reader.errors:
        raise SettingsError(reader.errors)
    return settings


class _Reader:
    """Parses one variable after another and collects what is wrong; after an error it goes on with the default."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self.errors: list[str] = []
        self._warnings: list[str] = []

    def settings(self) -> Settings:
        """Return the settings; they are worth something only if there is no error."""
        ca_directory = self._path("CA_DIRECTORY")
        credentials = self._credentials()
        resolvers = self._resolvers()
        compat = self._word("COMPAT", Compat)
        self._doubt_slow_tier()
        return Settings(
            listen_host=self._value("LISTEN_HOST", grammar.parse_listen_host),
            listen_port=self._value("LISTEN_PORT", grammar.parse_port),
            cache_directory=self._cache_directory(compat),
            workers=self._value("WORKERS", grammar.parse_workers),
            ca_directory=ca_directory,
            ca_certificate_file=self._optional_path("CA_CRT_FILE") or ca_directory / "ca.crt",
            ca_key_file=self._optional_path("CA_KEY_FILE") or ca_directory / "ca.key",
            # Not unquoted: the predecessor's fork gave it to openssl as it is.
            cert_password=self._value("CERT_PASSWORD", str, unquote=False),
            ca_name_constraints=self._flag("CA_NAME_CONSTRAINTS"),
            ca_rotation=self._flag("CA_ROTATION"),
            cache_max_size_bytes=self._value("CACHE_MAX_SIZE", grammar.parse_size_bytes),
            cache_inactive_s=self._time_s("CACHE_INACTIVE"),
            old_cache=self._value("OLD_CACHE", grammar.parse_old_cache),
            cache_min_free_bytes=self._value("CACHE_MIN_FREE", grammar.parse_size_bytes),
            store_url=self._value("STORE_URL", parse_store_url),
            store_key=self._value("STORE_KEY", parse_store_key),
            registries=self._registries(credentials),
            mirror_registries=self._mirror_registries(),
            default_registry=self._value("DEFAULT_REGISTRY", grammar.parse_default_registry),
            mirror_tls=self._flag("MIRROR_TLS"),
            credentials=credentials,
            auth_config_file=self._optional_path("AUTH_CONFIG_FILE"),
            auth_precedence=self._auth_precedence(),
            verify_ssl=self._flag("VERIFY_SSL"),
            verify_ssl_except=self._list("VERIFY_SSL_EXCEPT", parse_host, self.errors),
            upstream_ca_file=self._optional_path("UPSTREAM_CA_FILE"),
            trusted_hosts=self._list("TRUSTED_HOSTS", parse_host, self.errors),
            upstream_mappings=self._list("UPSTREAM_MAPPINGS", UpstreamMapping.parse, self.errors),
            disable_ipv6=self._flag("DISABLE_IPV6") or resolvers.ipv4_only,
            nameservers=resolvers.nameservers,
            upstream_proxies=self._upstream_proxies(),
            download_connections=self._value("DOWNLOAD_CONNECTIONS", grammar.parse_count),
            download_part_bytes=self._value("DOWNLOAD_PART_SIZE", grammar.parse_size_bytes),
            enable_manifest_cache=self._flag("ENABLE_MANIFEST_CACHE"),
            tiers=self._tiers(),
            offline=self._flag("OFFLINE"),
            not_found_s=self._value("NOT_FOUND_TIME", parse_not_found_s),
            allow_push=self._flag("ALLOW_PUSH"),
            allow_push_with_own_auth=self._flag("ALLOW_PUSH_WITH_OWN_AUTH"),
            proxy_logins=self._proxy_logins(),
            private_images=self._value("PRIVATE_IMAGES", grammar.parse_private_images),
            access_ttl_s=self._time_s("ACCESS_TTL"),
            access_grace_s=self._time_s("ACCESS_GRACE"),
            allow_clients=self._list("ALLOW_CLIENTS", parse_network, self.errors),
            image_rules=self._image_rules(),
            readiness_window_s=self._time_s("READINESS_WINDOW"),
            admin_token=self._value("ADMIN_TOKEN", grammar.parse_token, unquote=False),
            admin_hosts=frozenset(self._list("ADMIN_HOSTS", normalise_host, self.errors)),
            send_timeout_s=self._time_s("SEND_TIMEOUT"),
            client_body_timeout_s=self._time_s("CLIENT_BODY_TIMEOUT"),
            client_header_timeout_s=self._time_s("CLIENT_HEADER_TIMEOUT"),
            keepalive_timeout_s=self._time_s("KEEPALIVE_TIMEOUT"),
            drain_timeout_s=self._time_s("DRAIN_TIMEOUT"),
            max_connections=self._value("MAX_CONNECTIONS", grammar.parse_number),
            max_connections_per_client=self._value("MAX_CONNECTIONS_PER_CLIENT", grammar.parse_number),
            proxy_connect_timeout_s=self._time_s("PROXY_CONNECT_TIMEOUT"),
            proxy_send_timeout_s=self._time_s("PROXY_SEND_TIMEOUT"),
            proxy_read_timeout_s=self._time_s("PROXY_READ_TIMEOUT"),
            proxy_connect_connect_timeout_s=self._time_s("PROXY_CONNECT_CONNECT_TIMEOUT"),
            proxy_connect_read_timeout_s=self._time_s("PROXY_CONNECT_READ_TIMEOUT"),
            compat=compat,
            debug=self._flag("DEBUG"),
            debug_hub=self._flag("DEBUG_HUB"),
            debug_password=self._value("DEBUG_PASSWORD", parse_password),
            debug_nginx=self._flag("DEBUG_NGINX"),
            log_format=self._word("LOG_FORMAT", LogFormat),
            log_level=self._word("LOG_LEVEL", LogLevel),
            warnings=tuple(self._warnings),
        )

    def _value[T](self, variable: str, parse: Callable[[str], T], *, unquote: bool = True) -> T:
        raw = self._sources.get(variable)
        try:
            return parse(grammar.strip_quotes(raw.text) if unquote else raw.text)
        except ValueError as error:
            self.errors.append(raw.problem(str(error)))
        return parse(BY_VARIABLE[variable].default)

    def _time_s(self, variable: str) -> float:
        return self._value(variable, grammar.parse_duration_s)

    def _path(self, variable: str) -> Path:
        return self._value(variable, grammar.parse_path)

    def _optional_path(self, variable: str) -> Path | None:
        return self._value(variable, lambda text: grammar.parse_path(text) if text else None)

    def _flag(self, variable: str) -> bool:
        text = self._value(variable, str)
        if not grammar.is_boolean(text):
            consequence = "upstream certificates are NOT verified" if variable == "VERIFY_SSL" else "read as false"
            self._warnings.append(self._sources.get(variable).problem(f"neither true nor false: {consequence}"))
        return grammar.is_true(text)

    def _word[Word: StrEnum](self, variable: str, words: type[Word]) -> Word:
        """Return one of a few words; another one is doubted, for other programs have such names, too."""
        text, default = self._value(variable, str).lower(), BY_VARIABLE[variable].default
        if text in set(words):
            return words(text)
        self._warnings.append(self._sources.get(variable).problem(f"not one of {', '.join(words)}: read as {default}"))
        return words(default)

    def _list[T](self, variable: str, parse: Callable[[str], T], complaints: list[str]) -> tuple[T, ...]:
        """Return what can be parsed of a list; each other entry adds a line to `complaints`."""
        raw = self._sources.get(variable)
        try:
            words = raw.words
        except ValueError as error:
            self.errors.append(raw.problem(str(error)))
            return ()
        parsed: list[T] = []
        for number, word in enumerate(words, start=1):
            try:
                parsed.append(parse(word))
            except ValueError as error:
                complaints.append(f"{raw.label}: entry {number} cannot be used: {reason(word, error)}")
        return tuple(dict.fromkeys(parsed))

    def _registries(self, credentials: tuple[Credential, ...]) -> tuple[HostPattern, ...]:
        """Return REGISTRIES and the hosts of logins: a login of a host that is only tunnelled could not be used."""
        patterns = list(self._list("REGISTRIES", parse_registry, self._warnings))
        for credential in credentials:
            port = credential.port or _HTTPS_PORT
            if any(pattern.tunnelled and pattern.matches(credential.host, port) for pattern in patterns):
                self._warnings.append(
                    f"REGISTRIES: {credential.host} is not intercepted, so its login in AUTH_REGISTRIES is not used"
                )
            elif not is_intercepted(credential.host, port, patterns):
                patterns.append(HostPattern(credential.host, credential.port))
        return tuple(patterns)

    def _mirror_registries(self) -> tuple[HostPattern, ...] | None:
        """Return what the mirror door serves, None when nothing was said."""
        if self._sources.find("MIRROR_REGISTRIES") is None:
            return None
        words = self._list("MIRROR_REGISTRIES", str, self.errors)
        return () if words == (grammar.NONE,) else self._list("MIRROR_REGISTRIES", parse_mirrored, self.errors)

    def _proxy_logins(self) -> tuple[ProxyLogin, ...]:
        """Return the logins of clients. A bad one is an error: the proxy must not be more open than it looks."""
        raw = self._sources.get("PROXY_AUTH")
        if isinstance(raw.value, str):
            lines = grammar.strip_quotes(raw.value).splitlines()
            words = [word for line in lines if not line.lstrip().startswith("#") for word in line.split()]
        else:
            words = [str(word) for word in raw.value]
        logins: list[ProxyLogin] = []
        for number, word in enumerate(words, start=1):
            try:
                logins.append(ProxyLogin.parse(word))
            except ValueError as error:
                self.errors.append(raw.problem(f"entry {number} cannot be used: {error}"))
        return tuple(logins)

    def _image_rules(self) -> tuple[ImageRule, ...]:
        """Return the rules. A bad one is an error: the proxy must not be more open than it looks."""
        raw = self._sources.get("IMAGE_RULES")
        if isinstance(raw.value, str):
            lines = re.split(r"[;\n]", grammar.strip_quotes(raw.value))
        else:
            lines = [str(entry) for entry in raw.value]
        rules: list[ImageRule] = []
        for line in (line.strip() for line in lines):
            try:
                if line and not line.startswith("#"):
                    rules.append(ImageRule.parse(line))
            except ValueError as error:
                self.errors.append(raw.problem(str(error)))
        if (rule := without_effect(rules)) is not None:
            reason = f"the last rule, `{rule}`, has no effect, for what no rule fits is served"
            self.errors.append(raw.problem(f"{reason}; end with `deny *` to serve nothing else"))
        return tuple(rules)

    def _upstream_proxies(self) -> ProxyPlan:
        return ProxyPlan(
            self._forward_proxy("HTTPS_PROXY"),
            self._forward_proxy("HTTP_PROXY"),
            self._list("NO_PROXY", ProxyException.parse, self._warnings),
        )

    def _forward_proxy(self, variable: str) -> ForwardProxy | None:
        """Return the proxy; the predecessor had no use for the variable, so a bad one is no reason not to start."""
        raw = self._sources.find(variable)
        if raw is None:
            return None
        try:
            text = grammar.strip_quotes(raw.text)
            return ForwardProxy.parse(text) if text else None
        except ValueError as error:
            self._warnings.append(raw.problem(f"no proxy is used: {error}"))
        return None

    def _resolvers(self) -> Resolvers:
        path = self._path("RESOLVERS_FILE")
        try:
            resolvers = parse_resolvers(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return Resolvers()
        except (OSError, ValueError):
            self._warnings.append(f"RESOLVERS_FILE={path}: cannot be read, the system's name servers are used")
            return Resolvers()
        self._warnings.extend(f"RESOLVERS_FILE={path}: {problem}" for problem in resolvers.problems)
        return resolvers

    def _cache_directory(self, compat: Compat) -> Path:
        """Return the directory; without a word each predecessor's volume is where its image had it."""
        if compat is Compat.GMARCY and self._sources.find("CACHE_DIRECTORY") is None:
            return _GMARCY_CACHE_DIRECTORY
        return self._path("CACHE_DIRECTORY")

    def _doubt_slow_tier(self) -> None:
        raw = self._sources.find("SLOW_TIER_ENABLED")
        if raw is not None and grammar.is_true(grammar.strip_quotes(raw.text)):
            reason = BY_VARIABLE["SLOW_TIER_ENABLED"].meaning.partition(": ")[2]
            self._warnings.append(raw.problem(f"no effect: {reason}; give CACHE_MAX_SIZE the room of both caches"))

    def _auth_precedence(self) -> Precedence:
        """Return AUTH_PRECEDENCE, or what the fork's ALLOW_OWN_AUTH means."""
        named = self._value("AUTH_PRECEDENCE", grammar.parse_precedence)
        own = self._sources.find("ALLOW_OWN_AUTH")
        if own is None:
            return named
        meant = Precedence.CLIENT if self._flag("ALLOW_OWN_AUTH") else Precedence.PROXY
        if self._sources.find("AUTH_PRECEDENCE") is None:
            return meant
        if (named is Precedence.PROXY) is not (meant is Precedence.PROXY):
            self._warnings.append(own.problem(f"no effect: AUTH_PRECEDENCE={named} says otherwise"))
        return named

    def _credentials(self) -> tuple[Credential, ...]:
        raw = self._sources.get("AUTH_REGISTRIES")
        if not isinstance(raw.value, str):
            return self._yaml_credentials(raw, raw.value)
        list_delimiter = self._value("AUTH_REGISTRIES_DELIMITER", str, unquote=False)
        field_delimiter = self._value("AUTH_REGISTRY_DELIMITER", str, unquote=False)
        credentials, warnings = parse_credential_list(raw.value, list_delimiter, field_delimiter)
        self._warnings.extend(warnings)
        return credentials

    def _yaml_credentials(self, raw: Raw, entries: tuple[object, ...]) -> tuple[Credential, ...]:
        directory = self._sources.yaml_path.parent if self._sources.yaml_path else Path()
        credentials: list[Credential] = []
        for number, entry in enumerate(entries, start=1):
            try:
                credential = parse_yaml_credential(entry, directory)
                refuse_second_login(credential, credentials)
            except CredentialEntryError as error:
                self.errors.append(raw.problem(f"entry {number} cannot be used: {error}"))
                continue
            credentials.append(credential)
        return tuple(credentials)

    def _tiers(self) -> tuple[Tier, ...]:
        default = Tier(name="default", pattern=None, lifetime_s=self._time_s("MANIFEST_CACHE_DEFAULT_TIME"))
        named = (self._tier("primary"), self._tier("secondary"))
        return (*(tier for tier in named if tier is not None), default)

    def _tier(self, name: TierName) -> Tier | None:
        """Return the tier, or None if its pattern is empty or cannot be used."""
        lifetime_s = self._time_s(f"MANIFEST_CACHE_{name.upper()}_TIME")
        variable = f"MANIFEST_CACHE_{name.upper()}_REGEX"
        text = self._value(variable, str)
        if not text:
            return None
        try:
            return Tier.from_expression(name, text, lifetime_s)
        except ValueError as error:
            self._warnings.append(self._sources.get(variable).problem(f"the tier is ignored: {error}"))
        return None
