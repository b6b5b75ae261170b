"""Every variable: its default, a good value, a bad one; YAML; what may be told about secrets."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from regproxy.policy.adoption import OldCache
from regproxy.policy.interception import HostPattern
from regproxy.policy.mappings import UpstreamMapping
from regproxy.policy.precedence import Precedence
from regproxy.settings import Compat, LogFormat, LogLevel, Settings, SettingsError, load_settings
from regproxy.settings.table import SETTINGS_TABLE

SECRET = "hunter2-s3cret"

type Pick = Callable[[Settings], object]


def hosts(patterns: tuple[HostPattern, ...]) -> list[str]:
    return [str(pattern) for pattern in patterns]


def tier(name: str) -> Pick:
    """Return how to pick the lifetime of a tier, or None if the tier is not there."""
    return lambda settings: next((tier.lifetime_s for tier in settings.tiers if tier.name == name), None)


# variable, what it sets, default, a good value, what that gives
GOOD: list[tuple[str, Pick, object, str, object]] = [
    ("LISTEN_HOST", lambda s: s.listen_host, "", "[::1]", "::1"),
    ("LISTEN_PORT", lambda s: s.listen_port, 3128, '"8080"', 8080),
    ("CACHE_DIRECTORY", lambda s: s.cache_directory, Path("/docker_mirror_cache"), "'/a b'", Path("/a b")),
    ("CACHE_MAX_SIZE", lambda s: s.cache_max_size_bytes, 32 << 30, "500m", 500 << 20),
    ("CACHE_INACTIVE", lambda s: s.cache_inactive_s, 60 * 86400, "1h30m", 5400),
    ("OLD_CACHE", lambda s: s.old_cache, OldCache.COPY, "Move", OldCache.MOVE),
    ("CACHE_MIN_FREE", lambda s: s.cache_min_free_bytes, 1 << 30, "0", 0),
    ("WORKERS", lambda s: s.workers, 1, "Auto", 0),
    ("AUTH_PRECEDENCE", lambda s: s.auth_precedence, Precedence.CLIENT, " Proxy", Precedence.PROXY),
    ("ALLOW_OWN_AUTH", lambda s: s.auth_precedence, Precedence.CLIENT, "false", Precedence.PROXY),
    ("CA_DIRECTORY", lambda s: s.ca_certificate_file, Path("/ca/ca.crt"), "/x", Path("/x/ca.crt")),
    ("CA_CRT_FILE", lambda s: s.ca_certificate_file, Path("/ca/ca.crt"), "/y/c.pem", Path("/y/c.pem")),
    ("CA_KEY_FILE", lambda s: s.ca_key_file, Path("/ca/ca.key"), "/y/k.pem", Path("/y/k.pem")),
    ("CA_NAME_CONSTRAINTS", lambda s: s.ca_name_constraints, False, "true", True),
    ("CA_ROTATION", lambda s: s.ca_rotation, True, "false", False),
    ("CERT_PASSWORD", lambda s: s.cert_password, "", '"quoted" ', '"quoted" '),
    (
        "REGISTRIES",
        lambda s: hosts(s.registries),
        ["registry.k8s.io", "gcr.io", "quay.io", "ghcr.io"],
        "Quay.io, https://ghcr.io/\n*.dkr.ecr.*.amazonaws.com http://10.0.0.1:5000 quay.io",
        ["quay.io", "ghcr.io", "*.dkr.ecr.*.amazonaws.com", "http://10.0.0.1:5000"],
    ),
    (
        "MIRROR_REGISTRIES",
        lambda s: hosts(s.mirrored),
        ["registry-1.docker.io", "registry.k8s.io", "gcr.io", "quay.io", "ghcr.io"],
        "docker.io, http://lab.test:5000",
        ["registry-1.docker.io", "http://lab.test:5000"],
    ),
    ("DEFAULT_REGISTRY", lambda s: s.default_registry, "docker.io", "Lab.test:5000", "Lab.test:5000"),
    ("MIRROR_TLS", lambda s: s.mirror_tls, False, "true", True),
    ("AUTH_REGISTRIES", lambda s: [c.host for c in s.credentials], [], "a.io:u:p b.io:u:p", ["a.io", "b.io"]),
    ("DOWNLOAD_CONNECTIONS", lambda s: s.download_connections, 4, "1", 1),
    ("DOWNLOAD_PART_SIZE", lambda s: s.download_part_bytes, 16 << 20, "64m", 64 << 20),
    ("VERIFY_SSL", lambda s: s.verify_ssl, True, "false", False),
    ("VERIFY_SSL_EXCEPT", lambda s: hosts(s.verify_ssl_except), [], "a.test, b.test:5000", ["a.test", "b.test:5000"]),
    ("UPSTREAM_CA_FILE", lambda s: s.upstream_ca_file, None, "/x.pem", Path("/x.pem")),
    ("AUTH_CONFIG_FILE", lambda s: s.auth_config_file, None, "/config.json", Path("/config.json")),
    (
        "TRUSTED_HOSTS",
        lambda s: hosts(s.trusted_hosts),
        [],
        "cdn.test:8443 *.lab.test",
        ["cdn.test:8443", "*.lab.test"],
    ),
    (
        "UPSTREAM_MAPPINGS",
        lambda s: s.upstream_mappings,
        (),
        "a.test=127.0.0.1:5000",
        (UpstreamMapping("a.test", "127.0.0.1", 5000),),
    ),
    ("DISABLE_IPV6", lambda s: s.disable_ipv6, False, "true", True),
    ("HTTPS_PROXY", lambda s: str(s.upstream_proxies.https), "None", "http://a.test:8080/", "http://a.test:8080"),
    ("HTTP_PROXY", lambda s: str(s.upstream_proxies.http), "None", "b.test", "http://b.test:80"),
    ("NO_PROXY", lambda s: len(s.upstream_proxies.exceptions), 0, "a.test,.b.test 10.0.0.0/8,::1", 4),
    ("ENABLE_MANIFEST_CACHE", lambda s: s.enable_manifest_cache, False, '"true"', True),
    ("MANIFEST_CACHE_PRIMARY_REGEX", tier("primary"), 600, "", None),
    ("MANIFEST_CACHE_PRIMARY_TIME", tier("primary"), 600, "1d", 86400),
    ("MANIFEST_CACHE_SECONDARY_REGEX", tier("secondary"), 60 * 86400, "", None),
    ("MANIFEST_CACHE_SECONDARY_TIME", tier("secondary"), 60 * 86400, "0s", 0),
    ("MANIFEST_CACHE_DEFAULT_TIME", tier("default"), 3600, "0", 0),
    ("OFFLINE", lambda s: s.offline, False, "true", True),
    ("NOT_FOUND_TIME", lambda s: s.not_found_s, 10, "1m", 60),
    ("ALLOW_PUSH", lambda s: s.allow_push, False, "true", True),
    ("ALLOW_PUSH_WITH_OWN_AUTH", lambda s: s.allow_push_with_own_auth, False, "true", True),
    ("PRIVATE_IMAGES", lambda s: s.private_images.value, "strict", "Share", "share"),
    ("ACCESS_TTL", lambda s: s.access_ttl_s, 300, "1m", 60),
    ("ACCESS_GRACE", lambda s: s.access_grace_s, 86400, "0", 0),
    ("READINESS_WINDOW", lambda s: s.readiness_window_s, 2_592_000, "7d", 604_800),
    (
        "ALLOW_CLIENTS",
        lambda s: [str(network) for network in s.allow_clients],
        [],
        "10.1.2.3/8, 192.0.2.7 2001:db8::/32",
        ["10.0.0.0/8", "192.0.2.7/32", "2001:db8::/32"],
    ),
    (
        "IMAGE_RULES",
        lambda s: [str(rule) for rule in s.image_rules],
        [],
        "allow registry-1.docker.io/library/*; allow Quay.io/secret/* from 10.1.0.0/16,10.2.0.1\ndeny *",
        ["allow docker.io/library/*", "allow quay.io/secret/* from 10.1.0.0/16 10.2.0.1/32", "deny *"],
    ),
    ("PROXY_AUTH", lambda s: [each.username for each in s.proxy_logins], [], "a:p:q b:$2y$05$x", ["a", "b"]),
    ("SEND_TIMEOUT", lambda s: s.send_timeout_s, 60, "5", 5),
    ("CLIENT_BODY_TIMEOUT", lambda s: s.client_body_timeout_s, 60, "6s", 6),
    ("CLIENT_HEADER_TIMEOUT", lambda s: s.client_header_timeout_s, 60, "7s", 7),
    ("MAX_CONNECTIONS", lambda s: s.max_connections, 10_000, "0", 0),
    ("MAX_CONNECTIONS_PER_CLIENT", lambda s: s.max_connections_per_client, 5_000, "7", 7),
    ("DRAIN_TIMEOUT", lambda s: s.drain_timeout_s, 2, "45s", 45),
    ("KEEPALIVE_TIMEOUT", lambda s: s.keepalive_timeout_s, 300, "8s", 8),
    ("PROXY_CONNECT_TIMEOUT", lambda s: s.proxy_connect_timeout_s, 60, "500ms", 0.5),
    ("PROXY_SEND_TIMEOUT", lambda s: s.proxy_send_timeout_s, 60, "9s", 9),
    ("PROXY_READ_TIMEOUT", lambda s: s.proxy_read_timeout_s, 60, "10s", 10),
    ("PROXY_CONNECT_CONNECT_TIMEOUT", lambda s: s.proxy_connect_connect_timeout_s, 60, "11s", 11),
    ("PROXY_CONNECT_READ_TIMEOUT", lambda s: s.proxy_connect_read_timeout_s, 60, "1d", 86400),
    ("COMPAT", lambda s: s.compat, Compat.RPARDINI, "gmarcy", Compat.GMARCY),
    ("DEBUG", lambda s: s.debug, False, "true", True),
    ("DEBUG_HUB", lambda s: s.debug_hub, False, "true", True),
    ("DEBUG_NGINX", lambda s: s.debug_nginx, False, "true", True),
    ("LOG_FORMAT", lambda s: s.log_format, LogFormat.AUTO, "JSON", LogFormat.JSON),
    ("LOG_LEVEL", lambda s: s.log_level, LogLevel.INFO, "warning", LogLevel.WARNING),
    ("DEBUG_PASSWORD", lambda s: s.debug_password, "", "'a long one'", "a long one"),
    ("ADMIN_TOKEN", lambda s: s.admin_token, "", " 0123456789abcdef ", "0123456789abcdef"),
    ("ADMIN_HOSTS", lambda s: s.admin_hosts, set(), "Proxy.Example. b", {"proxy.example", "b"}),
]

# Tested in their own way: the files, and the delimiters.
TESTED_ELSEWHERE = {
    *("CONFIG_FILE", "RESOLVERS_FILE", "AUTH_REGISTRIES_DELIMITER", "AUTH_REGISTRY_DELIMITER"),
    *("STORE_URL", "STORE_KEY"),
}


@pytest.mark.parametrize(("variable", "pick", "default", "value", "expected"), GOOD, ids=[row[0] for row in GOOD])
def test_a_variable_has_its_default_and_its_value(
    variable: str, pick: Pick, default: object, value: str, expected: object
) -> None:
    """Nothing set gives the default, a good value is read, and neither is doubted."""
    settings = load_settings({variable: value})

    assert pick(load_settings({})) == default
    assert pick(settings) == expected
    assert settings.warnings == ()


@pytest.mark.parametrize("variable", [row[0] for row in GOOD if "REGEX" not in row[0]])
def test_an_empty_variable_is_as_good_as_unset(variable: str) -> None:
    """Compose files pass empty variables where nothing is meant; an empty list of logins is the default anyway."""
    assert load_settings({variable: ""}) == load_settings({})


def test_every_variable_of_the_table_is_tested() -> None:
    """A new setting cannot be forgotten here."""
    expected = {row.variable for row in SETTINGS_TABLE if not row.ignored} - TESTED_ELSEWHERE

    assert {row[0] for row in GOOD} == expected


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("PRIVATE_IMAGES", "maybe", "not one of strict, share"),
        ("IMAGE_RULES", "allow a/* from nowhere", "'nowhere' is neither a network such as 10.0.0.0/8 nor an address"),
        ("LISTEN_PORT", "abc", "not a port number (1-65535)"),
        ("LISTEN_PORT", "0", "not a port number (1-65535)"),
        ("LISTEN_HOST", "a b", "not an address or host name"),
        ("CACHE_MAX_SIZE", "32gb", "not a size such as 1048576, 512k, 100m or 32g"),
        ("CACHE_DIRECTORY", "''", "not a path (empty or with a control character)"),
        ("OLD_CACHE", "delete", "not one of copy, move, ignore"),
        ("AUTH_PRECEDENCE", "own", "not one of client, client-then-proxy, proxy"),
    ],
)
def test_a_bad_value_is_one_line_with_name_value_and_reason(variable: str, value: str, reason: str) -> None:
    """The operator reads which variable, what was in it, and why it cannot be used."""
    with pytest.raises(SettingsError) as caught:
        load_settings({variable: value})

    assert str(caught.value).startswith(f"{variable}=")
    assert str(caught.value).endswith(f": {reason}")
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    "variable",
    [row.variable for row in SETTINGS_TABLE if "TIME" in row.variable and not row.ignored] + ["CACHE_INACTIVE"],
)
def test_a_bad_time_is_an_error_that_names_its_variable(variable: str) -> None:
    """No time is quietly replaced by its default."""
    with pytest.raises(SettingsError, match=f"^{variable}=soon: not a time"):
        load_settings({variable: "soon"})


@pytest.mark.parametrize(
    ("variable", "value"),
    [("TRUSTED_HOSTS", "good.test bad/host"), ("UPSTREAM_MAPPINGS", "a.test=127.0.0.1 b.test"), ("TRUSTED_HOSTS", "*")],
)
def test_a_bad_entry_of_our_own_lists_is_an_error(variable: str, value: str) -> None:
    """These lists decide whom the proxy trusts and have no past to be kind to."""
    with pytest.raises(SettingsError, match=f"^{variable}: entry [12] cannot be used: "):
        load_settings({variable: value})


def test_all_problems_are_told_at_once() -> None:
    """Nobody has to start the proxy three times to learn three errors."""
    with pytest.raises(SettingsError) as caught:
        load_settings({"LISTEN_PORT": "x", "CACHE_MAX_SIZE": "y", "SEND_TIMEOUT": "z"})

    assert [line.split("=")[0] for line in caught.value.problems] == ["LISTEN_PORT", "CACHE_MAX_SIZE", "SEND_TIMEOUT"]


def test_a_value_with_line_ends_stays_on_one_line() -> None:
    """A value cannot forge a second line of the log."""
    with pytest.raises(SettingsError) as caught:
        load_settings({"LISTEN_PORT": "1\nregistry-proxy: all is well"})

    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("row", [row for row in SETTINGS_TABLE if row.ignored], ids=lambda row: str(row.variable))
def test_an_ignored_variable_changes_nothing(row: object) -> None:
    """What the predecessor had and we do not need is accepted with any value."""
    variable = getattr(row, "variable", "")

    assert load_settings({variable: "nonsense"}) == load_settings({})


def test_an_unknown_variable_changes_nothing() -> None:
    """The environment is full of other programs' variables."""
    assert load_settings({"PATH": "/bin", "NO_SUCH_SETTING": "true"}) == load_settings({})


@pytest.mark.parametrize("value", ["True", "yes", "1", "on"])
def test_another_word_for_a_boolean_is_false_and_doubted(value: str) -> None:
    """The reference compares with `true`, so we may not read more into it, but we say so."""
    settings = load_settings({"ALLOW_PUSH": value})

    assert not settings.allow_push
    assert settings.warnings == (f"ALLOW_PUSH={value}: neither true nor false: read as false",)


def test_verification_turned_off_by_a_slip_is_said_plainly() -> None:
    """The reference turns verification off for every text but `true`."""
    settings = load_settings({"VERIFY_SSL": "ture"})

    assert not settings.verify_ssl
    assert settings.warnings == ("VERIFY_SSL=ture: neither true nor false: upstream certificates are NOT verified",)


@pytest.mark.parametrize("name", ["PRIMARY", "SECONDARY"])
def test_a_pattern_that_does_not_compile_removes_its_tier_with_a_warning(name: str) -> None:
    """The reference's server would have started, too; the other tiers stay."""
    settings = load_settings({f"MANIFEST_CACHE_{name}_REGEX": "(unclosed"})

    assert name.lower() not in [tier.name for tier in settings.tiers]
    assert len(settings.tiers) == 2
    assert settings.warnings[0].startswith(f"MANIFEST_CACHE_{name}_REGEX=(unclosed: the tier is ignored")


def test_a_bad_registry_is_left_out_with_a_warning() -> None:
    """One slip in the list does not take the others away."""
    settings = load_settings({"REGISTRIES": "good.test bad/x/y also.test"})

    assert hosts(settings.registries) == ["good.test", "also.test"]
    assert len(settings.warnings) == 1
    assert settings.warnings[0].startswith("REGISTRIES: entry 2 cannot be used: ")


def test_a_login_in_the_list_of_registries_is_not_told() -> None:
    """A password at the wrong place is still a password."""
    settings = load_settings({"REGISTRIES": f"https://user:{SECRET}@a.test"})

    assert "belongs in AUTH_REGISTRIES" in settings.warnings[0]
    assert SECRET not in repr(settings)


def test_the_hosts_of_logins_are_intercepted() -> None:
    """A login for a host that is only tunnelled has no effect: the most common mistake with the predecessor."""
    settings = load_settings(
        {"REGISTRIES": "*.test", "AUTH_REGISTRIES": "a.test:u:p auth.docker.io:u:p new.example:5000:u:p"}
    )

    assert hosts(settings.registries) == ["*.test", "new.example:5000"]


def test_delimiters_may_be_long_and_quoted() -> None:
    """Container managers pass the quotes on."""
    settings = load_settings(
        {
            "AUTH_REGISTRIES": "a.test:::u:::p w;;;b.test:::v:::q",
            "AUTH_REGISTRIES_DELIMITER": '";;;"',
            "AUTH_REGISTRY_DELIMITER": "':::'",
        }
    )

    assert [(c.host, c.username, c.password) for c in settings.credentials] == [
        ("a.test", "u", "p w"),
        ("b.test", "v", "q"),
    ]


def test_settings_cannot_be_changed() -> None:
    """What was checked at the start stays."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_settings({}).listen_port = 1  # type: ignore[misc]


def test_no_secret_is_in_the_text_of_settings_or_errors() -> None:
    """Neither the object's texts, nor a warning, nor an error beside it, shows a password."""
    environ = {"CERT_PASSWORD": SECRET, "AUTH_REGISTRIES": f"a.test:user:{SECRET} {SECRET} b.test:{SECRET} :{SECRET}:"}
    settings = load_settings(environ)

    assert settings.credentials[0].password == SECRET
    assert len(settings.warnings) == 3
    assert SECRET not in repr(settings) + str(settings) + "".join(settings.warnings)

    with pytest.raises(SettingsError) as caught:
        load_settings({**environ, "LISTEN_PORT": "x"})
    assert SECRET not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize(
    ("own", "named", "expected", "is_doubted"),
    [
        ("true", None, Precedence.CLIENT, False),
        ("true", "client-then-proxy", Precedence.CLIENT_THEN_PROXY, False),
        ("true", "proxy", Precedence.PROXY, True),
        ("false", "client", Precedence.CLIENT, True),
        ("false", "proxy", Precedence.PROXY, False),
    ],
)
def test_the_forks_word_for_precedence_yields_to_ours(
    own: str, named: str | None, expected: Precedence, is_doubted: bool
) -> None:
    """Two that contradict each other are told."""
    environ = {"ALLOW_OWN_AUTH": own} | ({} if named is None else {"AUTH_PRECEDENCE": named})
    settings = load_settings(environ)

    assert settings.auth_precedence is expected
    assert [w.startswith(f"ALLOW_OWN_AUTH={own}: no effect") for w in settings.warnings] == [True] * is_doubted
