"""Every variable of the predecessors: what it is without a word, with a good one, and with a bad one.

The rows are the tables 1.1 (rpardini/docker-registry-proxy 0.7.0) and 1.1b (its forks) of the contract. A bad value is
an error that names the variable where nginx would not have started, else a warning, or nothing where it had no effect.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from regproxy.policy.precedence import Precedence
from regproxy.settings import Compat, Settings, SettingsError, load_settings

BAD = "n0t-g00d!"

type Pick = Callable[[Settings], object]


@dataclass(frozen=True)
class Row:
    """One variable; `warning` and `error` are the beginnings of the line that the bad value gives."""

    variable: str
    pick: Pick
    default: object
    good: str
    parsed: object
    bad: str = BAD
    warning: str | None = None
    error: str | None = None
    others: tuple[tuple[str, str], ...] = ()
    """What else must be set for this variable to show."""


def tier(name: str) -> Pick:
    return lambda s: next((each.lifetime_s for each in s.tiers if each.name == name), None)


def expression(name: str) -> Pick:
    return lambda s: next((each.pattern.pattern for each in s.tiers if each.name == name and each.pattern), None)


def logins(settings: Settings) -> list[tuple[str, str, str]]:
    return [(each.host, each.username, each.password) for each in settings.credentials]


def flag(variable: str, pick: Pick) -> Row:
    return Row(variable, pick, False, "true", True, "yes", warning=f"{variable}=yes: neither true nor false")


def time(variable: str, pick: Pick, default_s: float, good: str = "1h 30m", parsed_s: float = 5400.0) -> Row:
    return Row(variable, pick, default_s, good, parsed_s, error=f"{variable}={BAD}: not a time")


REFERENCE = [
    Row(
        "REGISTRIES",
        lambda s: [str(each) for each in s.registries],
        ["registry.k8s.io", "gcr.io", "quay.io", "ghcr.io"],
        '"Quay.IO,https://ghcr.io/ http://r.test:5000\n*.dkr.ecr.*.amazonaws.com '
        '.x.test y.* -z.y.test 10.0.0.1 [::1]:5"',
        [
            "quay.io",
            "ghcr.io",
            "http://r.test:5000",
            "*.dkr.ecr.*.amazonaws.com",
            ".x.test",
            "y.*",
            "-z.y.test",
            "10.0.0.1",
            "[::1]:5",
        ],
        bad="a.test b_/c",
        warning="REGISTRIES: entry 2 cannot be used: ",
    ),
    Row(
        "AUTH_REGISTRIES",
        logins,
        [],
        '"some.authenticated.registry:oneuser:onepassword  a.test:u:p:w \n b.test:v:"',
        [("a.test", "u", "p:w")],
        bad=f"a.test:u:p {BAD}",
        warning="AUTH_REGISTRIES: entry 2 is left out: ",
    ),
    Row(
        "AUTH_REGISTRIES_DELIMITER",
        logins,
        [],
        '";;;"',
        [("a.test", "u", "p q"), ("b.test", "v", "r")],
        bad="#",
        warning=None,
        others=(("AUTH_REGISTRIES", "a.test:u:p q;;;b.test:v:r;;;"),),
    ),
    Row(
        "AUTH_REGISTRY_DELIMITER",
        logins,
        [],
        ":::",
        [("a.test", "u", "p:q")],
        bad="#",
        warning="AUTH_REGISTRIES: entry 1 is left out: ",
        others=(("AUTH_REGISTRIES", "a.test:::u:::p:q"),),
    ),
    Row(
        "VERIFY_SSL", lambda s: s.verify_ssl, True, "false", False, warning=f"VERIFY_SSL={BAD}: neither true nor false"
    ),
    flag("ENABLE_MANIFEST_CACHE", lambda s: s.enable_manifest_cache),
    Row(
        "MANIFEST_CACHE_PRIMARY_REGEX",
        expression("primary"),
        "(stable|nightly|production|test)",
        "(latest|edge)",
        "(latest|edge)",
        bad="(open",
        warning="MANIFEST_CACHE_PRIMARY_REGEX=(open: the tier is ignored: ",
    ),
    time("MANIFEST_CACHE_PRIMARY_TIME", tier("primary"), 600),
    Row(
        "MANIFEST_CACHE_SECONDARY_REGEX",
        expression("secondary"),
        r"(.*)(\d|\.)+(.*)(\d|\.)+(.*)(\d|\.)+",
        r"v\d",
        r"v\d",
        bad="[",
        warning="MANIFEST_CACHE_SECONDARY_REGEX=[: the tier is ignored: ",
    ),
    time("MANIFEST_CACHE_SECONDARY_TIME", tier("secondary"), 60 * 86400, "1y2M", (365 + 60) * 86400),
    time("MANIFEST_CACHE_DEFAULT_TIME", tier("default"), 3600, "0s", 0),
    flag("ALLOW_PUSH", lambda s: s.allow_push),
    Row("PROXY_REQUEST_BUFFERING", lambda _: None, None, "false", None),
    time("SEND_TIMEOUT", lambda s: s.send_timeout_s, 60),
    time("CLIENT_BODY_TIMEOUT", lambda s: s.client_body_timeout_s, 60),
    time("CLIENT_HEADER_TIMEOUT", lambda s: s.client_header_timeout_s, 60, "500ms", 0.5),
    time("KEEPALIVE_TIMEOUT", lambda s: s.keepalive_timeout_s, 300, "75", 75),
    time("PROXY_READ_TIMEOUT", lambda s: s.proxy_read_timeout_s, 60),
    time("PROXY_CONNECT_TIMEOUT", lambda s: s.proxy_connect_timeout_s, 60),
    time("PROXY_SEND_TIMEOUT", lambda s: s.proxy_send_timeout_s, 60),
    time("PROXY_CONNECT_READ_TIMEOUT", lambda s: s.proxy_connect_read_timeout_s, 60, "'1d'", 86400),
    time("PROXY_CONNECT_CONNECT_TIMEOUT", lambda s: s.proxy_connect_connect_timeout_s, 60),
    Row("PROXY_CONNECT_SEND_TIMEOUT", lambda _: None, None, "1d", None),
    flag("DISABLE_IPV6", lambda s: s.disable_ipv6),
    Row(
        "CACHE_MAX_SIZE",
        lambda s: s.cache_max_size_bytes,
        32 << 30,
        "500M",
        500 << 20,
        error=f"CACHE_MAX_SIZE={BAD}: not a size",
    ),
    time("CACHE_INACTIVE", lambda s: s.cache_inactive_s, 60 * 86400),
    flag("DEBUG", lambda s: s.debug),
    flag("DEBUG_HUB", lambda s: s.debug_hub),
    flag("DEBUG_NGINX", lambda s: s.debug_nginx),
    Row(
        "CA_KEY_FILE",
        lambda s: s.ca_key_file,
        Path("/ca/ca.key"),
        "/k/x.key",
        Path("/k/x.key"),
        bad="a\x01b",
        error=r"CA_KEY_FILE=a\x01b: not a path",
    ),
    Row(
        "CA_CRT_FILE",
        lambda s: s.ca_certificate_file,
        Path("/ca/ca.crt"),
        "/k/x.crt",
        Path("/k/x.crt"),
        bad="a\x01b",
        error=r"CA_CRT_FILE=a\x01b: not a path",
    ),
    Row("CA_SRL_FILE", lambda _: None, None, "/k/x.srl", None),
    *(Row(variable, lambda _: None, None, "x", None) for variable in ("BASE_IMAGE", "DEBUG_BUILD", "LANG")),
]

FORKS = [
    Row("WORKER_PROCESSES", lambda s: s.workers, 1, "auto", 0, error=f"WORKER_PROCESSES={BAD}: not a number from 1"),
    Row("WORKERS", lambda s: s.workers, 1, "4", 4, bad="0", error="WORKERS=0: not a number from 1 to 64, nor auto"),
    Row(
        "CACHE_DIRECTORY",
        lambda s: s.cache_directory,
        Path("/docker_mirror_cache"),
        "/registry_proxy_mirror_cache",
        Path("/registry_proxy_mirror_cache"),
        bad="a\x01b",
        error=r"CACHE_DIRECTORY=a\x01b: not a path",
    ),
    Row(
        "CACHE_MIN_FREE",
        lambda s: s.cache_min_free_bytes,
        1 << 30,
        "500m",
        500 << 20,
        error=f"CACHE_MIN_FREE={BAD}: not a size",
    ),
    time("CACHE_INACTIVE_TIME", lambda s: s.cache_inactive_s, 60 * 86400),
    flag("ALLOW_PUSH_WITH_OWN_AUTH", lambda s: s.allow_push_with_own_auth),
    Row(
        "ALLOW_OWN_AUTH",
        lambda s: s.auth_precedence,
        Precedence.CLIENT,
        "false",
        Precedence.PROXY,
        bad="yes",
        warning="ALLOW_OWN_AUTH=yes: neither true nor false: read as false",
    ),
    Row("CERT_PASSWORD", lambda s: s.cert_password, "", "f00 bar", "f00 bar", bad=" "),
    Row(
        "COMPAT",
        lambda s: (s.compat, s.cache_directory),
        (Compat.RPARDINI, Path("/docker_mirror_cache")),
        "gmarcy",
        (Compat.GMARCY, Path("/registry_proxy_mirror_cache")),
        warning=f"COMPAT={BAD}: not one of rpardini, gmarcy",
    ),
    *(
        Row(variable, lambda _: None, None, good, None)
        for variable, good in {
            "CACHE_VALID_TIME": "60d",
            "CACHE_KEYS_ZONE": "15m",
            "CACHE_MANAGER_THRESHOLD": "1000ms",
            "CACHE_MANAGER_SLEEP": "250ms",
            "CACHE_MANAGER_FILES": "100",
            "CACHE_LOADER_FILES": "100",
            "CACHE_LOADER_THRESHOLD": "200ms",
            "CACHE_LOADER_SLEEP": "50ms",
            "SLOW_TIER_ENABLED": "false",
            "SLOW_TIER_URIS": "~^/v2/a/(.*);~^/v2/b/(.+)",
            "SLOW_CACHE_DIRECTORY": "/slow",
            "SLOW_CACHE_MAX_SIZ": "15g",
            "SLOW_CACHE_MAX_SIZE": "15g",
            "SLOW_CACHE_MIN_FREE": "1g",
            "SLOW_CACHE_INACTIVE_TIME": "120d",
            "SLOW_CACHE_KEYS_ZONE": "150m",
            "FORCE_UPSTREAM_HTTP_1_1": "true",
            "PROXY_BUFFERING": "false",
            "LIVELINESS_REPOS": "https://quay.io/v2/, https://ghcr.io/v2/",
            "CURL_TIMEOUT": "2",
            "KEY_SIZE_CA": "4096",
            "KEY_SIZE_WEB": "2048",
        }.items()
    ),
]

ROWS = REFERENCE + FORKS


@pytest.mark.parametrize("row", ROWS, ids=[row.variable for row in ROWS])
class TestVariable:
    def test_without_it_there_is_the_predecessors_default(self, row: Row) -> None:
        """And no doubt about it."""
        settings = load_settings({})

        assert row.pick(settings) == row.default
        assert settings.warnings == ()

    def test_a_good_value_is_read(self, row: Row) -> None:
        """Without a warning, but for a login whose password is missing."""
        settings = load_settings({**dict(row.others), row.variable: row.good})

        assert row.pick(settings) == row.parsed
        assert all("password is empty" in warning for warning in settings.warnings)

    def test_a_bad_value_is_told_with_its_name(self, row: Row) -> None:
        """An error, or a warning and a proxy that starts; a variable without effect may hold anything."""
        environ = {**dict(row.others), row.variable: row.bad}
        if row.error is not None:
            with pytest.raises(SettingsError) as caught:
                load_settings(environ)
            assert caught.value.problems[0].startswith(row.error)
            assert len(caught.value.problems) == 1
            return
        warnings = load_settings(environ).warnings
        if row.warning is None:
            assert warnings == ()
        else:
            assert warnings[0].startswith(row.warning)
            assert len(warnings) == 1


def test_the_own_name_wins_over_an_alias() -> None:
    """Somebody who sets both means the one that this proxy names."""
    settings = load_settings({"CACHE_INACTIVE": "1d", "CACHE_INACTIVE_TIME": "2d"})

    assert settings.cache_inactive_s == 86400


def test_a_second_cache_that_is_asked_for_is_said_to_be_none() -> None:
    """Once, whatever else of it is set."""
    (warning,) = load_settings(
        {"SLOW_TIER_ENABLED": "true", "SLOW_TIER_URIS": "~^/v2/a/", "SLOW_CACHE_DIRECTORY": "/slow"}
    ).warnings

    assert warning.startswith("SLOW_TIER_ENABLED=true: no effect: content is kept once for each digest")


def test_a_cache_directory_of_ones_own_wins_over_gmarcys() -> None:
    """Its name is only another default."""
    settings = load_settings({"COMPAT": "gmarcy", "CACHE_DIRECTORY": "/mine"})

    assert settings.cache_directory == Path("/mine")
