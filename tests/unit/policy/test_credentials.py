"""Credentials: whose are sent where, and that they are never shown."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.policy.credentials import (
    DOCKER_HUB_ALIASES,
    Credential,
    authorization_of,
    basic_header,
    find_credential,
    is_pull,
    repository_of_scope,
)

QUAY = Credential("quay.io", None, "robot", "s3cret-word")
HUB = Credential("docker.io", None, "hubuser", "hubpass")
LOCAL = Credential("reg", 5000, "local", "pass")


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        pytest.param("quay.io", 443, QUAY, id="its host"),
        pytest.param("QUAY.io.", 443, QUAY, id="any spelling of the host"),
        pytest.param("quay.io", 8443, QUAY, id="any port"),
        pytest.param("cdn.quay.io", 443, None, id="no subdomain"),
        pytest.param("quay.io.evil.com", 443, None, id="no look-alike"),
        pytest.param("bad host", 443, None, id="malformed host"),
        pytest.param("example.com", 443, None, id="anonymous"),
        pytest.param("reg", 5000, LOCAL, id="the credential's port"),
        pytest.param("reg", 443, None, id="another port"),
        *(pytest.param(host, 443, HUB, id=host) for host in sorted(DOCKER_HUB_ALIASES)),
        pytest.param("production.cloudflare.docker.com", 443, None, id="storage of Docker Hub"),
    ],
)
def test_a_credential_is_for_its_host(host: str, port: int, expected: Credential | None) -> None:
    """The credential of exactly that host is used, else none."""
    assert find_credential(host, port, [QUAY, HUB, LOCAL]) is expected


EVERYWHERE = Credential("docker.io", None, "all", "p")
TEAM = Credential("docker.io", None, "team", "p", path="team")
TEAM_APP = Credential("index.docker.io", None, "app", "p", path="team/app")


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        pytest.param("library/alpine", EVERYWHERE, id="no path"),
        pytest.param("team/web", TEAM, id="below the path"),
        pytest.param("team", TEAM, id="the path itself"),
        pytest.param("team/app", TEAM_APP, id="the longest path, also of an alias"),
        pytest.param("team/app/sub", TEAM_APP, id="below the longest path"),
        pytest.param("team/app2", TEAM, id="whole components"),
        pytest.param("teams/app", EVERYWHERE, id="whole first component"),
        pytest.param("x/team/app", EVERYWHERE, id="only at the beginning"),
        pytest.param(None, EVERYWHERE, id="no repository"),
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_a_longer_path_comes_first(repository: str | None, expected: Credential, order: int) -> None:
    """Different repositories of one host can have different credentials, in any order of the list."""
    found = find_credential("registry-1.docker.io", 443, [EVERYWHERE, TEAM, TEAM_APP][::order], repository)

    assert found is expected


def test_a_path_keeps_a_credential_from_other_repositories() -> None:
    """Without a credential for the rest, the rest is anonymous; `/v2/`, which names none, is asked with it."""
    assert find_credential("docker.io", 443, [TEAM], "library/alpine") is None
    assert find_credential("docker.io", 443, [TEAM], None) is TEAM


@pytest.mark.parametrize(
    ("target", "repository"),
    [
        ("/token?service=registry.docker.io&scope=repository:team/app:pull", "team/app"),
        ("/token?scope=repository%3Ateam%2Fapp%3Apull%2Cpush&service=x", "team/app"),
        ("/token?scope=repository(plugin):team/app:pull", "team/app"),
        ("/token?scope=registry:catalog:*&scope=repository:a/b:pull", "a/b"),
        ("/token?scope=repository:a/b:pull+repository:c/d:pull", "a/b"),
        ("/token?scope=repository:reg.io:5000/a:pull", "reg.io:5000/a"),
        ("/token?scope=registry:catalog:*", None),
        ("/token?scope=repository:nothing", None),
        ("/token?scope=", None),
        ("/token", None),
    ],
)
def test_a_token_request_names_its_repository(target: str, repository: str | None) -> None:
    """The scope says for which repository a token is wanted."""
    assert repository_of_scope(target) == repository


@pytest.mark.parametrize(
    ("credential", "expected"),
    [
        pytest.param(QUAY, basic_header(QUAY), id="password"),
        pytest.param(Credential("a.io", None, "", "", registry_token="abc"), "Bearer abc", id="registry token"),
        pytest.param(Credential("a.io", None, "", "", identity_token="abc"), None, id="identity token"),
    ],
)
def test_what_is_sent_to_the_host(credential: Credential, expected: str | None) -> None:
    """A password is Basic, a registry token is Bearer; an identity token is for the token server's exchange alone."""
    assert authorization_of(credential) == expected
    assert "abc" not in repr(credential)


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


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/token?service=x&scope=repository:a/b:pull", True),
        ("/token?scope=repository:a:pull&scope=repository(plugin):b:pull", True),
        ("/token?scope=repository:a:pull%20repository:b:pull,push", False),
        ("/token?scope=repository:a:pull,push", False),
        ("/token?scope=registry:catalog:*", False),
        ("/token?scope=", False),
        ("/token?service=x&account=alice", False),
        ("/token", False),
    ],
)
def test_a_question_for_a_pull_is_told_from_a_login_and_a_push(target: str, expected: bool) -> None:
    """`docker login` names no repository, a push wants more."""
    assert is_pull(target) is expected
