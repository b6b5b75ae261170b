"""The proxy does the token exchange itself: cold, warm, with and without a login of the client, and when it fails."""

import base64
import json
import time
from pathlib import Path

import pytest

from lab.fixtures import MakeImage, StartOrigin, StartProxy
from lab.image import MANIFEST, random_chunks
from lab.lab import HUB, Lab
from lab.origin import Origin, Reply
from lab.proxy import Proxy
from lab.registry import PASSWORD, USERNAME
from lab.skopeo import Skopeo, hash_files

pytestmark = pytest.mark.e2e

LOGIN = {"AUTH_REGISTRIES": f"token.lab.test:{USERNAME}:{PASSWORD}"}
"""For the registry only: the token server is another host, and no registry of the proxy."""
WARM = {**LOGIN, "ENABLE_MANIFEST_CACHE": "true"}
ALICE = "Basic " + base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode()


def blob_hashes(directory: Path) -> set[str]:
    return {f"sha256:{digest}" for digest in hash_files(directory).values()}


class TestPulls:
    def test_without_any_login_a_private_image_is_pulled_cold_and_warm(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """The registry's login is enough; the second pull asks neither the token server nor for content."""
        image = build_image(layers=3)
        lab.push(image, "private/tokens")
        reference = f"{lab.token.name}/private/tokens:latest"
        proxy = start_proxy(WARM)
        asked = lab.auth.log.mark()
        proxy.skopeo("cold").pull(reference, tmp_path / "cold")
        assert set(image.blobs) <= blob_hashes(tmp_path / "cold")
        # one for the repository and one for `/v2/`, both with the login
        assert asked.count(path_contains="/token", status=200) == asked.count(path_contains="/token") == 2
        assert {request.authorization for request in asked.requests()} == {"Basic"}
        assert [request.target for request in asked.requests() if "scope=" in request.target] != []
        asked, read = lab.auth.log.mark(), lab.token.log.mark()
        proxy.skopeo("warm").pull(reference, tmp_path / "warm")
        assert hash_files(tmp_path / "warm") == hash_files(tmp_path / "cold")
        assert (asked.requests(), read.requests()) == ([], [])

    def test_a_stale_tag_is_revalidated_with_the_same_token(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """With tags that are never fresh, a warm pull is one HEAD with the token that is there."""
        lab.push(build_image(), "private/head")
        reference = f"{lab.token.name}/private/head:latest"
        proxy = start_proxy(LOGIN)
        proxy.skopeo("cold").pull(reference, tmp_path / "cold")
        asked, read = lab.auth.log.mark(), lab.token.log.mark()
        proxy.skopeo("warm").pull(reference, tmp_path / "warm")
        assert asked.requests() == []
        assert [(request.method, request.authorization) for request in read.requests()] == [("HEAD", "Bearer")]

    def test_a_large_blob_is_fetched_over_several_connections_with_one_token(
        self, lab: Lab, start_proxy: StartProxy
    ) -> None:
        """Each connection shows it."""
        digest = lab.storage.add_blob("private/large", random_chunks("large", 3 << 20))
        proxy = start_proxy({**LOGIN, "DOWNLOAD_CONNECTIONS": "3", "DOWNLOAD_PART_SIZE": "1m"})
        asked, read = lab.auth.log.mark(), lab.token.log.mark()
        answer = proxy.client().get(f"https://{lab.token.name}/v2/private/large/blobs/{digest}")
        assert (answer.status, len(answer.body)) == (200, 3 << 20)
        assert asked.count(path_contains="/token") == 1
        assert read.count(path_contains="/blobs/", status=206) == 2
        assert {request.authorization for request in read.requests() if request.status < 400} == {"Bearer"}

    def test_a_client_without_a_ping_pulls_public_content_of_docker_hub(
        self, lab: Lab, proxy: Proxy, build_image: MakeImage
    ) -> None:
        """The proxy has no login; the anonymous token is its own, asked for once."""
        image = build_image()
        lab.push(image, "library/hubimage")
        assert lab.hub.name == HUB
        asked, client = lab.auth.log.mark(), proxy.client()
        for digest in image.blobs:
            assert client.get(f"https://{HUB}/v2/library/hubimage/blobs/{digest}").status == 200
        answer = client.get(f"https://{HUB}/v2/library/hubimage/manifests/latest", {"Accept": MANIFEST})
        assert answer.body == image.read(image.digest)
        assert [request.authorization for request in asked.requests()] == [""]

    def test_tags_are_listed_without_a_login(self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage) -> None:
        """What streams through shows a token, too: the client was told that it needs none."""
        lab.push(build_image(), "private/listed", "v1")
        proxy = start_proxy(LOGIN)
        listed = proxy.skopeo().run(["list-tags", f"docker://{lab.token.name}/private/listed"])
        assert json.loads(listed.stdout)["Tags"] == ["v1"]


class TestOwnLogins:
    """Which logins a client may have beside the operator's, and what becomes of `/v2/`."""

    def test_without_a_login_of_the_operator_the_clients_own_is_used(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """The registry's challenge reaches the client; without a login it is told that it is unauthorized."""
        lab.push(build_image(), "private/own")
        reference = f"{lab.token.name}/private/own:latest"
        proxy = start_proxy({"REGISTRIES": f"{lab.proxy_settings['REGISTRIES']} auth.lab.test"})
        assert proxy.skopeo("own").pull(reference, tmp_path / "own", credentials=f"{USERNAME}:{PASSWORD}")
        refused = proxy.skopeo("none").pull(reference, tmp_path / "none", check=False)
        assert (refused.returncode, "unauthorized" in refused.stderr) == (1, True)

    @pytest.mark.parametrize("operators", ["token.lab.test", "token.lab.test auth.lab.test"])
    def test_with_a_login_of_the_operator_everybody_pulls(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path, operators: str
    ) -> None:
        """Who has a right login pulls, who has none pulls, by whichever login."""
        lab.push(build_image(), "private/both")
        logins = " ".join(f"{host}:{USERNAME}:{PASSWORD}" for host in operators.split())
        proxy = start_proxy({"AUTH_REGISTRIES": logins})
        reference = f"{lab.token.name}/private/both:latest"
        proxy.skopeo("own").pull(reference, tmp_path / "own", credentials=f"{USERNAME}:{PASSWORD}")
        proxy.skopeo("none").pull(reference, tmp_path / "none")
        assert hash_files(tmp_path / "own") == hash_files(tmp_path / "none")

    def test_the_ping_is_a_challenge_where_clients_get_their_tokens_through_the_proxy(
        self, lab: Lab, start_proxy: StartProxy
    ) -> None:
        """Docker Hub: both kinds of clients can live with it."""
        proxy = start_proxy({"AUTH_REGISTRIES": f"docker.io:{USERNAME}:{PASSWORD}"})
        assert lab.hub.name == HUB
        answers = [proxy.client().get(f"https://{HUB}/v2/") for _ in range(2)]
        assert [answer.status for answer in answers] == [401, 401]
        assert "auth.docker.io" in answers[0].header("WWW-Authenticate")

    def test_the_ping_is_open_where_clients_could_not_get_a_token(self, lab: Lab, start_proxy: StartProxy) -> None:
        """The registry said so to the operator's login; what carries a login is the registry's to judge."""
        url = f"https://{lab.token.name}/v2/"
        client = start_proxy(LOGIN).client()
        opened = client.get(url)
        assert (opened.status, opened.header("Docker-Distribution-Api-Version")) == (200, "registry/2.0")
        asked = lab.token.log.mark()
        assert client.get(url).status == 200
        assert asked.requests() == []
        assert client.get(url, {"Authorization": "Bearer wrong"}).status == 401
        assert client.get(url, {"Authorization": ALICE}).status == 401
        assert len(asked.requests()) == 2

    def test_the_ping_is_a_challenge_where_clients_push(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """A push needs the client's own login; a pull without one still gets the operator's.

        The token that such a client gets is one for nobody: the lab's token server says so in it.
        """
        settings = {**LOGIN, "ALLOW_PUSH": "true"}
        lab.push(build_image("old"), "private/pushed")
        # a blind tunnel leads to the token server: the client has to trust the lab's CA beside the proxy's
        proxy = start_proxy(settings)
        both = tmp_path / "both.pem"
        both.write_bytes(proxy.ca_file.read_bytes() + lab.pki.ca_file.read_bytes())
        assert proxy.client().get(f"https://{lab.token.name}/v2/").status == 401
        client = Skopeo(tmp_path / "client", both, proxy.address)
        reference = f"{lab.token.name}/private/pushed:latest"
        client.pull(reference, tmp_path / "none")
        new = build_image("new")
        assert client.push(new, reference, credentials=f"{USERNAME}:{PASSWORD}") == new.digest
        refused = client.run(["copy", "--all", new.source, f"docker://{reference}-2"], check=False)
        assert refused.returncode == 1

    def test_a_token_for_nobody_is_no_login(self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage) -> None:
        """BuildKit's client asks for its token past the proxy; a client's real token stays its own."""
        image = build_image()
        lab.push(image, "private/nobody")
        url = f"https://{lab.token.name}/v2/private/nobody/manifests/latest"
        scope = "service=token.lab.test&scope=repository:private/nobody:pull"
        nobodys, wrong = (
            json.loads(lab.client.get(f"https://auth.lab.test/token?{scope}{more}", login).body)["token"]
            for more, login in (("", {}), ("-none", {"Authorization": ALICE}))
        )
        with_login, without = start_proxy(LOGIN).client(), start_proxy().client()
        statuses = [
            client.get(url, {"Authorization": f"Bearer {token}", "Accept": MANIFEST}).status
            for client in (with_login, without)
            for token in (nobodys, wrong)
        ]
        assert statuses == [200, 401, 401, 401]


class TestFailures:
    def test_a_token_server_that_is_gone_does_not_stop_what_is_cached(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """After a restart there is no token at all; a client without a login pulls again, and is told of the new."""
        lab.push(build_image(), "private/cached")
        proxy = start_proxy(LOGIN)
        reference = f"{lab.token.name}/private/cached:latest"
        proxy.skopeo("before").pull(reference, tmp_path / "before")
        proxy.restart()
        lab.auth.stop()
        try:
            proxy.skopeo("during").pull(reference, tmp_path / "during")
            missing = proxy.client().get(f"https://{lab.token.name}/v2/private/other/manifests/latest")
        finally:
            lab.auth.start()
        assert hash_files(tmp_path / "during") == hash_files(tmp_path / "before")
        assert missing.status == 502
        assert "auth.lab.test" in json.loads(missing.body)["errors"][0]["message"]

    def test_a_token_that_has_run_out_is_replaced(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage
    ) -> None:
        """The token server makes tokens that live a second; every request succeeds."""
        lab.push(build_image(), "private/short")
        client = start_proxy(LOGIN).client()
        lab.auth.set_lifetime(1)
        try:
            asked = lab.auth.log.mark()
            url = f"https://{lab.token.name}/v2/private/short/manifests/latest"
            while asked.count(path_contains="/token") < 3:
                assert client.get(url, {"Accept": MANIFEST}).status == 200
        finally:
            lab.auth.set_lifetime()

    def test_a_refused_login_is_not_tried_again(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage
    ) -> None:
        """Not even once by a pull, if the check at start has met it; public content goes on coming.

        The log names host and user, and `/v2/` is the client's own again.
        """
        image = build_image()
        lab.push(image, "team/refused")
        proxy = start_proxy({"AUTH_REGISTRIES": f"token.lab.test:{USERNAME}:hunter2-Zq7"})
        asked, client = lab.auth.log.mark(), proxy.client()
        deadline_s = time.monotonic() + 30.0
        while "credential of" not in proxy.log:
            assert time.monotonic() < deadline_s, "the credential was not checked"
            time.sleep(0.05)
        for digest in image.blobs:
            assert client.get(f"https://{lab.token.name}/v2/team/refused/blobs/{digest}").status == 200
        assert client.get(f"https://{lab.token.name}/v2/").status == 401
        assert [request.authorization for request in asked.requests()] == [""]
        assert f"token.lab.test, user={USERNAME}" in proxy.log
        assert "hunter2-Zq7" not in proxy.log

    def test_a_wrong_password_that_goes_through_rests_too(self, lab: Lab, start_proxy: StartProxy) -> None:
        """A client's own token request, to which the proxy adds the login."""
        proxy = start_proxy({"AUTH_REGISTRIES": f"auth.lab.test:{USERNAME}:hunter2-Zq7"})
        assert lab.token.name
        asked, url = lab.auth.log.mark(), "https://auth.lab.test/token?service=token.lab.test"
        assert [proxy.client().get(url).status for _ in range(3)] == [401, 200, 200]
        assert [request.authorization for request in asked.requests()] == ["Basic", "", ""]

    @pytest.mark.parametrize(
        "challenge",
        [
            'Bearer realm="http://edge.lab.test/token",service="x"',
            'Bearer realm="https://169.254.169.254/token",service="x"',
            'Bearer realm="https://127.0.0.1:1/token",service="x"',
            'Bearer realm="https://user:secret@edge.lab.test/token",service="x"',
            "Bearer",
        ],
        ids=["plain http", "metadata", "loopback", "user name", "no realm"],
    )
    def test_a_challenge_that_may_not_be_answered_is_the_clients(
        self, start_proxy: StartProxy, origin: Origin, start_origin: StartOrigin, challenge: str
    ) -> None:
        """Nobody is asked, the client gets the registry's words."""
        edge = start_origin("edge.lab.test")
        client = start_proxy({"AUTH_REGISTRIES": "origin.lab.test:bob:hunter2-Zq7"}).client()
        origin.serve("/v2/a/manifests/b", Reply(b"closed", 401, {"WWW-Authenticate": challenge}))
        answer = client.get("https://origin.lab.test/v2/a/manifests/b")
        assert (answer.status, answer.body, answer.header("WWW-Authenticate")) == (401, b"closed", challenge)
        assert edge.log.requests() == []

    def test_a_registry_that_never_has_enough_is_not_hammered(
        self, start_proxy: StartProxy, origin: Origin, start_origin: StartOrigin
    ) -> None:
        """Two attempts the first time, one token; from then on one attempt and no token."""
        edge = start_origin("edge.lab.test")
        edge.serve("/token", Reply(b'{"access_token": "abc"}'))
        challenge = {"WWW-Authenticate": 'Bearer realm="https://edge.lab.test/token",service="x"'}
        origin.serve("/v2/a/manifests/b", Reply(b"closed", 401, challenge))
        client = start_proxy().client()
        statuses = [client.get("https://origin.lab.test/v2/a/manifests/b").status for _ in range(3)]
        assert statuses == [401, 401, 401]
        assert len(edge.log.requests()) == 1
        assert [request.authorization for request in origin.log.requests()] == ["", "Bearer", "Bearer", "Bearer"]
