"""Docker's config.json: its logins, whom to ask for others, and that nothing of it is ever shown."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.policy.credentials import Credential
from regproxy.policy.docker_config import (
    HUB_KEY,
    DockerConfig,
    DockerConfigError,
    HelperRequest,
    Place,
    parse_docker_config,
    parse_place,
)

SECRET = "s3cret-word"


def auth(pair: str) -> str:
    return base64.b64encode(pair.encode()).decode()


def of_auths(**entries: object) -> DockerConfig:
    return parse_docker_config(json.dumps({"auths": entries}))


def only(config: DockerConfig) -> Credential:
    assert config.problems == ()
    (credential,) = config.credentials
    return credential


@pytest.mark.parametrize(
    ("key", "place"),
    [
        (HUB_KEY, Place("index.docker.io", None, "")),
        ("quay.io", Place("quay.io", None, "")),
        ("Quay.IO.", Place("quay.io", None, "")),
        ("https://quay.io", Place("quay.io", None, "")),
        ("https://quay.io/v2/", Place("quay.io", None, "")),
        ("reg.test:5000", Place("reg.test", 5000, "")),
        ("http://[::1]:5000/v1/", Place("::1", 5000, "")),
        ("quay.io/team", Place("quay.io", None, "team")),
        ("https://quay.io/v2/team/app/", Place("quay.io", None, "team/app")),
        ("quay.io/v2ray", Place("quay.io", None, "v2ray")),
    ],
)
def test_a_key_is_read_as_a_place(key: str, place: Place) -> None:
    """Keys of Docker, podman and Kubernetes are read: with scheme, API version, port or path."""
    assert parse_place(key) == place


@pytest.mark.parametrize(
    "key", ["", "/", "*.azurecr.io", "a b", "quay.io/UPPER", "quay.io/../x", "u:p@quay.io", "a/b?c"]
)
def test_a_key_that_is_no_place_is_refused(key: str) -> None:
    """What names no host, or no part of one, is told."""
    with pytest.raises(ValueError, match=r"."):
        parse_place(key)


@pytest.mark.parametrize(
    ("entry", "username", "password"),
    [
        pytest.param({"auth": auth("bob:p:w ö")}, "bob", "p:w ö", id="auth, colons in the password"),
        pytest.param({"username": "bob", "password": "p"}, "bob", "p", id="two fields"),
        pytest.param(
            {"auth": auth("bob:p"), "username": "x", "password": "y"}, "bob", "p", id="auth wins, as in Docker"
        ),
        pytest.param({"auth": auth("bob:p\0\0")}, "bob", "p", id="padding"),
        pytest.param({"auth": auth("robot$ci:p"), "email": "a@b"}, "robot$ci", "p", id="other fields"),
        pytest.param(
            {"auth": auth('_json_key:{"a": "b:c \'d\'",\n "e": 1}')},
            "_json_key",
            '{"a": "b:c \'d\'",\n "e": 1}',
            id="GCR",
        ),
    ],
)
def test_a_login_is_read(entry: object, username: str, password: str) -> None:
    """User and password come through, whatever characters the password has."""
    credential = only(of_auths(**{"quay.io": entry}))

    assert (credential.host, credential.username, credential.password) == ("quay.io", username, password)


def test_tokens_are_read() -> None:
    """An identity token comes with or without a user; a registry token is sent as it is."""
    acr = only(
        of_auths(**{"x.azurecr.io": {"auth": auth("00000000-0000-0000-0000-000000000000:"), "identitytoken": "r"}})
    )
    assert (acr.identity_token, acr.password) == ("r", "")
    assert only(of_auths(**{"a.io": {"registrytoken": "abc.def="}})).registry_token == "abc.def="


def test_different_repositories_have_different_logins() -> None:
    """Keys with paths decide by the longest."""
    config = of_auths(**{"quay.io": {"auth": auth("all:p")}, "quay.io/team": {"auth": auth("team:p")}})

    found = [config.find("quay.io", 443, name) for name in ("team/app", "library/x")]
    assert [credential.username for credential in found if credential] == ["team", "all"]


@pytest.mark.parametrize(
    ("host", "port", "expected"),
    [
        ("registry-1.docker.io", 443, HelperRequest("hub", HUB_KEY)),
        ("gcr.io", 443, HelperRequest("gcloud", "https://gcr.io")),
        ("stored.test", 5000, HelperRequest("pass", "https://stored.test:5000")),
        ("other.test", 443, HelperRequest("pass", "other.test")),
        ("other.test", 5000, HelperRequest("pass", "other.test:5000")),
    ],
)
def test_the_helper_of_a_host_is_found(host: str, port: int, expected: HelperRequest) -> None:
    """A host's own helper comes first, the store is for the rest; the helper hears the key as the file has it."""
    config = parse_docker_config(
        json.dumps(
            {
                "credHelpers": {"docker.io": "hub", "https://gcr.io": "gcloud"},
                "credsStore": "pass",
                "auths": {"https://stored.test:5000": {}},
            }
        )
    )

    assert config.helper_for(host, port) == expected
    assert config.problems == ()


def test_without_helpers_nobody_is_asked() -> None:
    """A file of logins alone asks no helper, and one for a host is not asked about another."""
    assert of_auths().helper_for("quay.io", 443) is None
    assert parse_docker_config('{"credHelpers": {"gcr.io": "gcloud"}}').helper_for("quay.io", 443) is None


@pytest.mark.parametrize(
    ("content", "named"),
    [
        pytest.param({"auths": {"quay.io": {"auth": SECRET}}}, "quay.io", id="no Base64"),
        pytest.param({"auths": {"quay.io": {"auth": auth(SECRET)}}}, "quay.io", id="no colon"),
        pytest.param({"auths": {"quay.io": {"username": f"a:{SECRET}", "password": SECRET}}}, "quay.io", id="colon"),
        pytest.param({"auths": {"quay.io": {"password": [SECRET]}}}, "password", id="no text"),
        pytest.param({"auths": {"quay.io": SECRET}}, "quay.io", id="no object"),
        pytest.param({"auths": {"quay.io": {"registrytoken": f"{SECRET}\r\nX: y"}}}, "registrytoken", id="line end"),
        pytest.param(
            {"auths": {"quay.io": {"username": "a", "password": f"{SECRET}\ud800"}}}, "Unicode", id="surrogate"
        ),
        pytest.param({"auths": {f"https://u:{SECRET}@quay.io": {"auth": auth("a:b")}}}, "entry", id="login in the key"),
        pytest.param({"auths": {"*.azurecr.io": {"auth": auth("a:b")}}}, "*.azurecr.io", id="wildcard"),
        pytest.param({"credHelpers": {"quay.io": "../../bin/sh"}}, "quay.io", id="a path as helper"),
        pytest.param({"credHelpers": {"quay.io": ["x"]}}, "quay.io", id="no helper"),
        pytest.param({"credsStore": "a b"}, "credsStore", id="no store"),
        pytest.param({"credsStore": ["x"]}, "credsStore", id="a list as store"),
    ],
)
def test_what_cannot_be_used_is_left_out_and_named(content: object, named: str) -> None:
    """The sentence names the entry and has nothing of its secret; the rest of the file counts."""
    config = parse_docker_config(json.dumps(content))

    (problem,) = config.problems
    assert named in problem
    assert SECRET not in problem
    assert (config.credentials, dict(config.helpers), config.store) == ((), {}, "")


@pytest.mark.parametrize("text", ["", SECRET, "[]", '"x"', "[" * 100_000, "\ufeff{}", "{"])
def test_what_is_no_configuration_is_an_error_without_its_text(text: str) -> None:
    """Only one kind of error is raised, and it shows nothing of the file."""
    with pytest.raises(DockerConfigError) as refusal:
        parse_docker_config(text)
    assert SECRET not in str(refusal.value)


_JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
_ENTRY = st.dictionaries(
    st.sampled_from(["auth", "username", "password", "identitytoken", "registrytoken"]),
    _JSON | st.text().map(lambda text: auth(text.encode(errors="ignore").decode())),
)
_KEY = st.text() | st.sampled_from(["quay.io", HUB_KEY, "a.io/team", "[::1]:5000"])
_FILE = st.fixed_dictionaries(
    {},
    optional={
        "auths": _JSON | st.dictionaries(_KEY, _JSON | _ENTRY, max_size=4),
        "credHelpers": _JSON | st.dictionaries(_KEY, _JSON | st.just("pass"), max_size=4),
        "credsStore": _JSON,
    },
)


@given(st.text() | _FILE.map(json.dumps))
def test_no_file_breaks_the_parser(text: str) -> None:
    """Whatever the file has, there is a configuration whose parts can be used, or the one error."""
    try:
        config = parse_docker_config(text)
    except DockerConfigError:
        return
    for credential in config.credentials:
        (credential.password + credential.identity_token + credential.registry_token).encode()
    list(config.helper_hosts())
    config.helper_for("quay.io", 443)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0:"), min_size=1), st.text(min_size=8))
def test_no_secret_is_ever_shown(username: str, secret: str) -> None:
    """No text form of what was read has a secret, and no complaint."""
    marked = f"<{secret}>"
    entries = {
        "a.io": {"username": username, "password": marked},
        "b.io": {"identitytoken": marked},
        "c.io": {"auth": marked},
        "d.io": {"registrytoken": marked},
    }
    config = of_auths(**entries)

    assert marked not in repr(config)
    assert repr(marked)[1:-1] not in repr(config)
