"""Which challenge is answered, with whose password, and for what."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.oci.challenge import Challenge, parse_challenges
from regproxy.policy.interception import HostPattern
from regproxy.policy.realms import (
    Realm,
    RealmRefused,
    accept_realm,
    find_challenge,
    is_anonymous_bearer,
    is_opaque_bearer,
    may_have_password,
    pull_scope,
    registrable_domain,
)
from regproxy.policy.redirects import Url


def challenge(realm: str) -> Challenge:
    return Challenge("bearer", {"realm": realm, "service": "s", "scope": "x y"})


class TestAcceptRealm:
    @pytest.mark.parametrize(
        ("registry", "realm"),
        [
            ("https://registry-1.docker.io", "https://auth.docker.io/token"),
            ("https://reg.test:5000", "https://elsewhere.example:8443/t?a=b"),
            ("http://reg.test", "http://auth.test/token"),
            ("http://reg.test", "https://auth.test/token"),
        ],
    )
    def test_a_token_server_may_be_any_host_that_is_spoken_to_as_safely(self, registry: str, realm: str) -> None:
        """What it is given is another question."""
        accepted = accept_realm(Url.parse(registry), challenge(realm))

        assert (str(accepted.url), accepted.service, accepted.scope) == (realm, "s", "x y")

    @pytest.mark.parametrize(
        "realm",
        [
            "http://auth.test/token",
            "https://user@auth.test/token",
            "https://user:hunter2@auth.test/token",
            "ftp://auth.test/",
            "/token",
            "//auth.test/token",
            "",
            "https://",
            "https://auth.test\\@evil.test/",
            "https://auth.test/ x",
            "https://auth.test:99999/",
        ],
    )
    def test_others_are_refused_without_a_secret_in_the_words(self, realm: str) -> None:
        """Of an https registry."""
        with pytest.raises(RealmRefused) as refused:
            accept_realm(Url.parse("https://reg.test"), challenge(realm))

        assert "reg.test" in str(refused.value)
        assert "hunter2" not in str(refused.value)

    def test_a_challenge_may_lack_everything_but_its_realm(self) -> None:
        """Service and scope are hints."""
        (bare,) = parse_challenges(['Bearer realm="https://auth.test/"'])

        assert accept_realm(Url.parse("https://reg.test"), bare) == Realm(Url.parse("https://auth.test/"), "")

    def test_the_first_challenge_of_a_scheme_counts(self) -> None:
        """Case does not."""
        challenges = parse_challenges(['Basic realm="a", bearer realm="b"', "BEARER realm=c"])

        found = find_challenge(challenges, "bearer")
        assert found is not None
        assert found.params["realm"] == "b"
        assert find_challenge(challenges, "negotiate") is None


class TestPassword:
    @pytest.mark.parametrize(
        ("registry", "realm", "allowed"),
        [
            ("https://quay.io", "https://quay.io/v2/auth", True),
            ("https://reg.test:5000", "https://reg.test/token", True),
            ("https://registry-1.docker.io", "https://auth.docker.io/token", True),
            ("https://index.docker.io", "https://auth.docker.io/token", True),
            ("https://registry.gitlab.com", "https://gitlab.com/jwt/auth", True),
            ("https://registry.corp.lan", "https://git.corp.lan/jwt/auth", True),
            ("https://reg.example.co.uk", "https://auth.example.co.uk/", True),
            ("https://reg.example.co.uk", "https://auth.evil.co.uk/", False),
            ("https://a.github.io", "https://b.github.io/", False),
            ("https://quay.io", "https://quay.io.evil.example/", False),
            ("https://quay.io", "https://evilquay.io/", False),
            ("https://registry.gitlab.com", "http://gitlab.com/jwt/auth", False),
            ("http://reg.test.example", "http://auth.test.example/", True),
            ("https://10.0.0.1", "https://10.0.0.2/", False),
            ("https://10.0.0.1", "https://10.0.0.1/", True),
            ("https://[fd00::1]", "https://[fd00::2]/", False),
            ("https://registry", "https://auth/", False),
            ("https://docker.elastic.co", "https://docker-auth.elastic.co/auth", True),
            ("https://nvcr.io", "https://authn.nvidia.com/token", False),
            ("https://evil.docker.io", "https://auth.docker.io/token", True),
        ],
    )
    def test_it_stays_with_whom_it_was_given_to(self, registry: str, realm: str, *, allowed: bool) -> None:
        """The same host or registrable domain."""
        assert may_have_password(Url.parse(registry), Url.parse(realm), ()) is allowed

    def test_the_operator_may_trust_another_host(self) -> None:
        """With its port; never over plain http."""
        trusted = (HostPattern.parse("authn.nvidia.com:443"),)
        registry = Url.parse("https://nvcr.io")

        assert may_have_password(registry, Url.parse("https://authn.nvidia.com/token"), trusted)
        assert not may_have_password(registry, Url.parse("https://authn.nvidia.com:444/token"), trusted)
        assert not may_have_password(registry, Url.parse("http://authn.nvidia.com:443/token"), trusted)

    @pytest.mark.parametrize(
        ("host", "domain"),
        [
            ("a.b.c.example.com", "example.com"),
            ("example.com", "example.com"),
            ("com", None),
            ("co.uk", None),
            ("a.co.uk", "a.co.uk"),
            ("github.io", None),
            ("a.b.internal", "b.internal"),
            ("localhost", None),
            ("10.0.0.1", None),
            ("fd00::1", None),
        ],
    )
    def test_the_registrable_domain(self, host: str, domain: str | None) -> None:
        """By the Public Suffix List."""
        assert registrable_domain(host) == domain

    @given(st.text("abc.", min_size=1, max_size=12), st.text("abc.", min_size=1, max_size=12))
    def test_an_unrelated_suffix_is_no_domain(self, prefix: str, host: str) -> None:
        """A name's registrable domain is a part of it that begins at a label."""
        name = f"{prefix}.{host}".replace("..", ".").strip(".")
        domain = registrable_domain(name)

        assert domain is None or name == domain or name.endswith(f".{domain}")


class TestScope:
    @pytest.mark.parametrize(
        ("named", "scope"),
        [
            ("", "repository:team/app:pull"),
            ("repository:team/app:pull", "repository:team/app:pull"),
            ("repository:team/app:pull,push", "repository:team/app:pull"),
            ("repository:other:pull", "repository:team/app:pull"),
            ("registry:catalog:* repository:team/app:*", "repository:team/app:pull"),
            ("repository(plugin):team/app:pull", "repository(plugin):team/app:pull"),
            ("aws", "repository:team/app:pull"),
        ],
    )
    def test_one_repository_is_pulled(self, named: str, scope: str) -> None:
        """Whatever the challenge names."""
        realm = Realm(Url.parse("https://auth.test/"), "", named)

        assert pull_scope(realm, "team/app") == scope
        assert pull_scope(realm, None) == ""

    @given(st.text())
    def test_no_challenge_makes_it_wider(self, named: str) -> None:
        """Not one word of it but the class."""
        scope = pull_scope(Realm(Url.parse("https://auth.test/"), "", named), "a.b")

        assert scope.endswith(":a.b:pull")
        assert len(scope.split()) == 1


def bearer(claims: object) -> str:
    middle = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    return f"Bearer e30.{middle}.sig"


PULL = [{"type": "repository", "name": "a", "actions": ["pull"]}]
PUSH = [{"type": "repository", "name": "a", "actions": ["pull", "push"]}]


class TestAnonymousBearer:
    @pytest.mark.parametrize(
        ("authorization", "is_anonymous"),
        [
            (bearer({"sub": "", "access": []}), True),
            (bearer({"sub": "", "access": PULL}), True),
            (bearer({"access": None}), True),
            (bearer({"sub": "(anonymous)"}), True),
            (bearer({"sub": "", "access": PUSH}), False),
            (bearer({"sub": "alice", "access": []}), False),
            (bearer({"sub": 7}), False),
            (bearer({"sub": ["x"]}), False),
            (bearer({"sub": "", "access": "push"}), False),
            (bearer({"sub": "", "access": ["push"]}), False),
            (bearer([]), False),
            ("Bearer opaque", False),
            ("Bearer a.%%%.c", False),
            ("Bearer a..c", False),
            (bearer({}).replace("Bearer", "bearer"), True),
            (bearer({}).replace("Bearer", "Basic"), False),
            ("", False),
        ],
    )
    def test_it_is_a_token_of_nobody_for_pulls(self, authorization: str, *, is_anonymous: bool) -> None:
        """Whatever cannot be read is somebody's."""
        assert is_anonymous_bearer(authorization) is is_anonymous

    @given(st.text())
    def test_nothing_breaks_it(self, text: str) -> None:
        """It is a client's text."""
        assert is_anonymous_bearer(f"Bearer a.{text}.c") in (True, False)


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        ("Bearer opaque", True),
        ("bearer  ya29.a.b", True),
        ("Bearer e30.W10.c", True),  # its claims are a list
        ("Bearer e30.e30.c2ln", False),
        ("Basic b3BhcXVl", False),
        ("garbage", False),
    ],
)
def test_a_token_that_says_nothing_of_its_owner_is_opaque(authorization: str, expected: bool) -> None:
    """A JSON web token says something, whatever it is."""
    assert is_opaque_bearer(authorization) is expected
