"""Credentials: whose are sent where, and that they are never shown."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.policy.credentials import (
    DOCKER_HUB_ALIASES,
    Credential,
    basic_header,
    choose_authorization,
    find_credential,
    repository_of_scope,
)

QUAY = Credential("quay.io", None, "robot", "s3cret-word")
HUB = Credential("docker.io", None, "hubuser", "hubpass")
LOCAL = Credential("reg", 5000, "local", "pass")


@pytest.mark.parametrize(
    ("client", "host", "port", "expected"),
    [
        pytest.param("Bearer abc", "quay.io", 443, "Bearer abc", id="client wins"),
        pytest.param("garbage", "quay.io", 443, "garbage", id="even a wrong client wins"),
        pytest.param(None, "quay.io", 443, basic_header(QUAY), id="absent"),
        pytest.param("", "quay.io", 443, basic_header(QUAY), id="empty"),
        pytest.param(" \t", "quay.io", 443, basic_header(QUAY), id="blank"),
        pytest.param(None, "QUAY.io.", 443, basic_header(QUAY), id="any spelling of the host"),
        pytest.param(None, "quay.io", 8443, basic_header(QUAY), id="any port"),
        pytest.param(None, "cdn.quay.io", 443, None, id="no subdomain"),
        pytest.param(None, "quay.io.evil.com", 443, None, id="no look-alike"),
        pytest.param(None, "bad host", 443, None, id="malformed host"),
        pytest.param("Bearer abc", "example.com", 443, "Bearer abc", id="client without configuration"),
        pytest.param(None, "example.com", 443, None, id="anonymous"),
        pytest.param(None, "reg", 5000, basic_header(LOCAL), id="the credential's port"),
        pytest.param(None, "reg", 443, None, id="another port"),
        *(pytest.param(None, host, 443, basic_header(HUB), id=host) for host in sorted(DOCKER_HUB_ALIASES)),
        pytest.param(None, "production.cloudflare.docker.com", 443, None, id="storage of Docker Hub"),
    ],
)
def test_authorization_is_chosen_for_the_host(client: str | None, host: str, port: int, expected: str | None) -> None:
    """The client's own is kept, else the credential of exactly that host is used, else none."""
    assert choose_authorization(client, host, port, [QUAY, HUB, LOCAL]) == expected


def test_an_exact_host_comes_before_an_alias() -> None:
    """A credential for the token host itself is preferred to one for Docker Hub in general."""
    exact = Credential("auth.docker.io", None, "a", "b")

    assert find_credential("auth.docker.io", 443, [HUB, exact]) is exact
    assert find_credential("index.docker.io", 443, [HUB, exact]) is HUB


def test_an_exact_port_comes_before_any_port() -> None:
    """A credential for host and port is preferred to one for the host."""
    everywhere = Credential("reg", None, "a", "b")

    assert find_credential("reg", 5000, [everywhere, LOCAL]) is LOCAL
    assert find_credential("reg", 443, [everywhere, LOCAL]) is everywhere


def test_the_first_of_equal_credentials_is_used() -> None:
    """When a host is listed twice, the first entry counts."""
    second = Credential("quay.io", None, "other", "x")

    assert find_credential("quay.io", 443, [QUAY, second]) is QUAY


@pytest.mark.parametrize("show", [repr, str, "{}".format, "{0!r}".format])
def test_a_password_is_never_shown(show: object) -> None:
    """No text form of a credential has the password, plain or encoded."""
    assert callable(show)
    text = show([QUAY]) + show(QUAY)

    assert "s3cret-word" not in text
    assert basic_header(QUAY).removeprefix("Basic ") not in text
    assert "robot" in text


@given(st.text().filter(lambda text: ":" not in text), st.text(st.characters(exclude_categories=["Cs"])))
def test_basic_carries_any_password(username: str, password: str) -> None:
    """User and password are found again behind the first colon, in UTF-8, and no line break gets into the header."""
    username = username.encode(errors="ignore").decode()
    header = basic_header(Credential("reg", None, username, password))

    assert header.isprintable()
    assert base64.b64decode(header.removeprefix("Basic ")).decode().partition(":") == (username, ":", password)


def test_a_user_name_with_a_colon_is_refused_without_the_password() -> None:
    """Basic cannot carry such a name; the message says so and shows no secret."""
    with pytest.raises(ValueError, match="colon") as refusal:
        Credential("reg", None, "a:b", "s3cret-word")

    assert "s3cret-word" not in str(refusal.value)


def test_the_host_of_a_credential_is_normalised() -> None:
    """Case and a final dot in the configuration do not keep a credential from being used."""
    assert Credential("Quay.IO.", None, "a", "b").host == "quay.io"


ALL = Credential("gcr.test", None, "all", "p")
TEAM = Credential("gcr.test", None, "team", "p", "team")
SECRET_TEAM = Credential("gcr.test", None, "secret", "p", "team/secret")
EVERY = [ALL, TEAM, SECRET_TEAM]


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        ("team/app", TEAM),
        ("team", TEAM),
        ("team/secret", SECRET_TEAM),
        ("team/secret/app", SECRET_TEAM),
        ("team/secretly", TEAM),
        ("teams/app", ALL),
        ("other/app", ALL),
        (None, ALL),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_the_longest_path_counts(repository: str | None, expected: Credential, order: int) -> None:
    """Whole components only, in whatever order they are listed."""
    assert find_credential("gcr.test", 443, EVERY[::order], repository) is expected


def test_a_login_for_a_path_goes_to_no_other_repository() -> None:
    """A question without a repository, the ping that opens every pull, has to be asked by somebody."""
    assert find_credential("gcr.test", 443, [TEAM], "other/app") is None
    assert find_credential("gcr.test", 443, [TEAM], None) is TEAM


@pytest.mark.parametrize(
    ("target", "repository"),
    [
        ("/token?service=x&scope=repository:team/app:pull", "team/app"),
        ("/token?scope=repository%3Ateam%2Fapp%3Apull%2Cpush", "team/app"),
        ("/token?scope=registry:catalog:*&scope=repository:a:pull", "a"),
        ("/token?scope=repository:a", None),
        ("/token", None),
    ],
)
def test_a_token_is_asked_for_a_repository(target: str, repository: str | None) -> None:
    """The first one that the scopes name."""
    assert repository_of_scope(target) == repository
