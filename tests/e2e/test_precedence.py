"""Whose login reaches the registry: what clients send, by the operator's wish and by what he has himself."""

import base64
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.fixtures import MakeImage, StartProxy
from lab.image import MANIFEST, random_chunks
from lab.lab import HUB, Lab
from lab.proxy import Proxy
from lab.registry import PASSWORD, USERNAME, Registry

pytestmark = pytest.mark.e2e

RIGHT = f"{USERNAME}:{PASSWORD}"
WRONG = f"{USERNAME}:wrong"
LOGINS = " ".join(f"{host}:{RIGHT}" for host in ("basic.lab.test", "token.lab.test", "docker.io"))

type Key = tuple[str, bool]
"""Precedence, and whether the operator has logins."""

KEYS: tuple[Key, ...] = (
    ("client", True),
    ("client-then-proxy", True),
    ("proxy", True),
    ("client", False),
    ("proxy", False),
)


@dataclass(frozen=True)
class Came:
    """What came of one read."""

    status: int
    """That the client got."""
    credential: str
    """What the access log says, the operator's without user and host."""
    seen: tuple[tuple[str, int], ...]
    """What the registry saw: scheme of the Authorization, and the status it gave."""


def basic(pair: str) -> str:
    return "Basic " + base64.b64encode(pair.encode()).decode()


@pytest.fixture(scope="module")
def proxies(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[Key, Proxy]]:
    """Start a proxy of each kind, and let it know the registry that wants tokens."""
    names = " ".join([lab.proxy_settings["REGISTRIES"], "auth.lab.test"])
    with ExitStack() as cleanup:
        started: dict[Key, Proxy] = {}
        for key in (
            ("client", True),
            ("client-then-proxy", True),
            ("proxy", True),
            ("client", False),
            ("proxy", False),
        ):
            precedence, has_logins = key
            # One process, for each worker asks for tokens of its own, and what is asked for is compared.
            settings = {"REGISTRIES": names, "AUTH_PRECEDENCE": precedence, "WORKERS": "1"}
            settings |= {"AUTH_REGISTRIES": LOGINS} if has_logins else {}
            directory = tmp_path_factory.mktemp("precedence")
            started[key] = cleanup.enter_context(lab.proxy(directory, settings))
            started[key].client().get(f"https://{lab.token.name}/v2/")
        yield started


@pytest.fixture(scope="module")
def expired(lab: Lab) -> str:
    """Return a token of alice's whose time is over, by more than the registry's leeway."""
    lab.auth.set_lifetime(-100)
    try:
        return token(lab, "private/any", RIGHT)
    finally:
        lab.auth.set_lifetime()


def token(lab: Lab, repository: str, login: str | None) -> str:
    """Return a token that was given past the proxy."""
    url = f"https://auth.lab.test/token?service=token.lab.test&scope=repository:{repository}:pull"
    given = lab.client.get(url, {} if login is None else {"Authorization": basic(login)})
    return f"Bearer {json.loads(given.body)['token']}"


def logged(proxy: Proxy, uri: str) -> str:
    """Return the credential of the access log's line about a path; the line follows the answer."""
    deadline_s = time.monotonic() + 30.0
    while not (lines := [line for line in proxy.log.splitlines() if f'"uri":"{uri}"' in line]):
        assert time.monotonic() < deadline_s, f"no line about {uri}"
        time.sleep(0.02)
    return str(json.loads(lines[0])["credential"])


def read(proxy: Proxy, registry: Registry, repository: str, own: str | None) -> Came:
    """Read a blob that nobody has read."""
    digest = registry.storage.add_blob(repository, random_chunks(repository, 1000))
    path = f"/v2/{repository}/blobs/{digest}"
    before = registry.log.mark()
    answer = proxy.client().get(f"https://{registry.name}{path}", {} if own is None else {"Authorization": own})
    seen = tuple((request.authorization, request.status) for request in before.requests(path_contains=path))
    return Came(answer.status, logged(proxy, path).partition(":")[0], seen)


OURS_BASIC = Came(200, "operator", (("Basic", 200),))
OURS_TOKEN = Came(200, "operator", (("Bearer", 200),))


class TestReads:
    """A private blob, cold: by `client`, `client-then-proxy` and `proxy`, and without a login of the operator's."""

    @pytest.mark.parametrize(
        ("sent", "client", "client_then_proxy", "proxy", "alone"),
        [
            pytest.param(None, OURS_BASIC, OURS_BASIC, OURS_BASIC, Came(401, "", (("", 401),)), id="nothing"),
            pytest.param(
                "anonymous",
                OURS_BASIC,
                OURS_BASIC,
                OURS_BASIC,
                Came(401, "client", (("Bearer", 401), ("", 401))),
                id="an anonymous token",
            ),
            pytest.param(
                "Bearer opaque",
                Came(200, "operator", (("Bearer", 401), ("Basic", 200))),
                Came(200, "operator", (("Bearer", 401), ("Basic", 200))),
                OURS_BASIC,
                Came(401, "client", (("Bearer", 401),)),
                id="an opaque token",
            ),
            pytest.param(
                "expired",
                Came(401, "client", (("Bearer", 401),)),
                Came(200, "operator", (("Bearer", 401), ("Basic", 200))),
                OURS_BASIC,
                Came(401, "client", (("Bearer", 401),)),
                id="an expired token",
            ),
            pytest.param(
                basic(WRONG),
                Came(401, "client", (("Basic", 401),)),
                Came(200, "operator", (("Basic", 401), ("Basic", 200))),
                OURS_BASIC,
                Came(401, "client", (("Basic", 401),)),
                id="a wrong password",
            ),
            pytest.param(
                basic(RIGHT),
                Came(200, "client", (("Basic", 200),)),
                Came(200, "client", (("Basic", 200),)),
                OURS_BASIC,
                Came(200, "client", (("Basic", 200),)),
                id="the right password",
            ),
        ],
    )
    def test_of_a_registry_that_wants_passwords(
        self,
        lab: Lab,
        proxies: dict[Key, Proxy],
        expired: str,
        request: pytest.FixtureRequest,
        *,
        sent: str | None,
        client: Came,
        client_then_proxy: Came,
        proxy: Came,
        alone: Came,
    ) -> None:
        """An opaque token counts as nobody's when it was refused, a real login only by the operator's wish."""
        own = {"expired": expired, "anonymous": token(lab, "private/any", None)}.get(sent or "", sent)
        expected = dict(zip(proxies, (client, client_then_proxy, proxy, alone, alone), strict=True))

        assert expected == {
            key: read(each, lab.basic, repository("basic", request, key), own) for key, each in proxies.items()
        }

    @pytest.mark.parametrize(
        ("sent", "client", "client_then_proxy", "proxy", "alone"),
        [
            pytest.param(None, OURS_TOKEN, OURS_TOKEN, OURS_TOKEN, Came(401, "", (("Bearer", 401),)), id="nothing"),
            pytest.param(
                "anonymous",
                OURS_TOKEN,
                OURS_TOKEN,
                OURS_TOKEN,
                Came(401, "client", (("Bearer", 401), ("Bearer", 401))),
                id="an anonymous token",
            ),
            pytest.param(
                "Bearer opaque",
                Came(200, "operator", (("Bearer", 401), ("Bearer", 200))),
                Came(200, "operator", (("Bearer", 401), ("Bearer", 200))),
                OURS_TOKEN,
                Came(401, "client", (("Bearer", 401),)),
                id="an opaque token",
            ),
            pytest.param(
                "expired",
                Came(401, "client", (("Bearer", 401),)),
                Came(200, "operator", (("Bearer", 401), ("Bearer", 200))),
                OURS_TOKEN,
                Came(401, "client", (("Bearer", 401),)),
                id="an expired token",
            ),
            pytest.param(
                "alice's",
                Came(200, "client", (("Bearer", 200),)),
                Came(200, "client", (("Bearer", 200),)),
                OURS_TOKEN,
                Came(200, "client", (("Bearer", 200),)),
                id="a good token",
            ),
        ],
    )
    def test_of_a_registry_that_wants_tokens(
        self,
        lab: Lab,
        proxies: dict[Key, Proxy],
        expired: str,
        request: pytest.FixtureRequest,
        *,
        sent: str | None,
        client: Came,
        client_then_proxy: Came,
        proxy: Came,
        alone: Came,
    ) -> None:
        """As with passwords; the operator's token is got by the proxy."""
        expected = dict(zip(proxies, (client, client_then_proxy, proxy, alone, alone), strict=True))
        came = {}
        for key, each in proxies.items():
            name = repository("token", request, key)
            own = sent
            match sent:
                case "expired":
                    own = expired
                case "anonymous":
                    own = token(lab, name, None)
                case "alice's":
                    own = token(lab, name, RIGHT)
            came[key] = read(each, lab.token, name, own)

        assert came == expected

    def test_a_refused_login_is_shown_once_for_a_pull(self, lab: Lab, proxies: dict[Key, Proxy]) -> None:
        """The other reads of the repository show the operator's at once."""
        proxy = proxies["client-then-proxy", True]
        came = [read(proxy, lab.basic, "private/once", basic(WRONG)).seen]
        digest = lab.storage.add_blob("private/once", random_chunks("another", 1000))
        before = lab.basic.log.mark()
        url = f"https://{lab.basic.name}/v2/private/once/blobs/{digest}"
        assert proxy.client().get(url, {"Authorization": basic(WRONG)}).status == 200
        came.append(tuple((request.authorization, request.status) for request in before.requests()))

        assert came == [(("Basic", 401), ("Basic", 200)), (("Basic", 200),)]

    def test_manifests_and_lists_go_by_the_same_rule(
        self, lab: Lab, proxies: dict[Key, Proxy], build_image: MakeImage
    ) -> None:
        """And the HEAD of a blob that no cache has."""
        image = build_image()
        lab.push(image, "private/lists")
        paths = ("manifests/latest", "tags/list", f"blobs/{image.blobs[0]}")
        statuses = {}
        for key, proxy in proxies.items():
            client, fields = proxy.client(), {"Authorization": basic(WRONG), "Accept": MANIFEST}
            urls = [f"https://{lab.basic.name}/v2/private/lists/{path}" for path in paths]
            answers = [client.get(urls[0], fields), client.get(urls[1], fields), client.head(urls[2], fields)]
            statuses[key] = [answer.status for answer in answers]

        assert statuses == {
            ("client", True): [401] * 3,
            ("client-then-proxy", True): [200] * 3,
            ("proxy", True): [200] * 3,
            ("client", False): [401] * 3,
            ("proxy", False): [401] * 3,
        }


def repository(registry: str, request: pytest.FixtureRequest, key: Key) -> str:
    """Return a name that no other case has."""
    words = f"{registry} {request.node.callspec.id} {key[0]} {key[1]}".lower().replace("'", "")
    return "private/" + "-".join(words.split())


class TestClients:
    """skopeo against the look-alike of Docker Hub, whose challenge every client gets to see."""

    @pytest.mark.parametrize(
        ("key", "without", "wrong", "right"),
        [
            (("client", True), True, False, True),
            (("client-then-proxy", True), True, True, True),
            (("proxy", True), True, True, True),
            (("client", False), False, False, True),
            (("proxy", False), False, False, True),
        ],
        ids=str,
    )
    def test_who_pulls_a_private_image(
        self,
        lab: Lab,
        proxies: dict[Key, Proxy],
        build_image: MakeImage,
        tmp_path: Path,
        *,
        key: Key,
        without: bool,
        wrong: bool,
        right: bool,
    ) -> None:
        """An old password on a node does not end its pulls at the token server, if the operator's counts."""
        name = f"private/pulls-{key[0]}-{key[1]}".lower()
        lab.push(build_image(), name)
        assert lab.hub.name == HUB
        pulled = {}
        for who, credentials in (("without", None), ("wrong", WRONG), ("right", RIGHT)):
            skopeo = proxies[key].skopeo(f"{key[0]}-{key[1]}-{who}")
            reference = f"{HUB}/{name}:latest"
            done = skopeo.pull(reference, tmp_path / who, credentials=credentials, check=False)
            pulled[who] = done.returncode == 0

        assert pulled == {"without": without, "wrong": wrong, "right": right}

    @pytest.mark.parametrize("key", [("client", True), ("client-then-proxy", True), ("proxy", True)], ids=str)
    def test_a_login_is_judged_by_the_registry(self, lab: Lab, proxies: dict[Key, Proxy], key: Key) -> None:
        """Whatever the operator has."""
        assert lab.hub.name == HUB
        skopeo = proxies[key].skopeo(f"login-{key[0]}")
        codes = [
            skopeo.run(["login", "--username", USERNAME, "--password", password, HUB], check=False).returncode
            for password in ("wrong", PASSWORD)
        ]
        pings = [
            proxies[key].client().get(f"https://{lab.basic.name}/v2/", {"Authorization": basic(login)}).status
            for login in (WRONG, RIGHT)
        ]

        assert [code == 0 for code in codes] == [False, True]
        assert pings == [401, 200]

    def test_the_fork_s_word_means_the_proxy_s(self, lab: Lab, start_proxy: StartProxy) -> None:
        """`ALLOW_OWN_AUTH=false`: gmarcy's default."""
        proxy = start_proxy({"AUTH_REGISTRIES": LOGINS, "ALLOW_OWN_AUTH": "false"})

        assert read(proxy, lab.basic, "private/fork", basic(WRONG)) == OURS_BASIC

    def test_a_push_is_the_client_s_own(self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage) -> None:
        """Also where reads are the operator's."""
        settings = {"AUTH_REGISTRIES": LOGINS, "AUTH_PRECEDENCE": "proxy", "ALLOW_PUSH_WITH_OWN_AUTH": "true"}
        proxy, image = start_proxy(settings), build_image()
        reference = f"{HUB}/private/pushed-own:latest"
        assert lab.hub.name == HUB
        skopeo = proxy.skopeo()
        refused = skopeo.run(
            ["copy", "--all", "--dest-creds", WRONG, image.source, f"docker://{reference}"], check=False
        )

        assert refused.returncode != 0
        assert skopeo.push(image, reference, credentials=RIGHT) == image.digest
