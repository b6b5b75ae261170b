"""The operator's credentials open private content for clients that bring none, and are seen by nobody else."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.fixtures import MakeImage, StartOrigin, StartProxy
from lab.image import random_chunks
from lab.lab import HUB, Lab
from lab.origin import Reply
from lab.proxy import Proxy
from lab.registry import PASSWORD, USERNAME, Registry
from lab.skopeo import hash_files

pytestmark = pytest.mark.e2e

UNIQUE_PASSWORD = "hunter2-Zq7"
CREDENTIALS = f"basic.lab.test:{USERNAME}:{PASSWORD}"
ALL_CREDENTIALS = (
    f"{CREDENTIALS} auth.lab.test:{USERNAME}:{PASSWORD} docker.io:{USERNAME}:{PASSWORD}"
    f" origin.lab.test:bob:{UNIQUE_PASSWORD}"
)
SECRETS = (
    f"{USERNAME}:{PASSWORD}",
    base64.b64encode(f"{USERNAME}:{PASSWORD}".encode()).decode(),
    UNIQUE_PASSWORD,
    base64.b64encode(f"bob:{UNIQUE_PASSWORD}".encode()).decode(),
    "eyJ",  # how every JSON web token begins
)


@pytest.fixture(scope="module")
def authorized(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Start one proxy that has credentials for registry and token hosts, and logs as much as it can."""
    settings = {"AUTH_REGISTRIES": ALL_CREDENTIALS, "DEBUG_NGINX": "true"}
    with lab.proxy(tmp_path_factory.mktemp("proxy"), settings) as running:
        yield running


class TestPulls:
    @pytest.mark.parametrize("registry_name", ["basic", "token", "hub"])
    def test_an_anonymous_client_pulls_private_content(
        self, lab: Lab, authorized: Proxy, build_image: MakeImage, tmp_path: Path, registry_name: str
    ) -> None:
        """Credentials of a registry, of its token server and of Docker Hub open private/* without a login."""
        image = build_image()
        registry: Registry = getattr(lab, registry_name)
        lab.push(image, f"private/{registry_name}")
        pulled = authorized.skopeo(registry_name).pull(
            f"{registry.name}/private/{registry_name}:latest", tmp_path / "pulled"
        )
        assert pulled.returncode == 0
        hashes = set(hash_files(tmp_path / "pulled").values())
        assert {digest.removeprefix("sha256:") for digest in image.blobs} <= hashes

    @pytest.mark.parametrize("registry_name", ["basic", "token", "hub"])
    def test_without_credentials_private_content_stays_private(
        self, lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path, registry_name: str
    ) -> None:
        """A proxy that has no credentials opens nothing: the client is told that it is unauthorized."""
        registry: Registry = getattr(lab, registry_name)
        lab.push(build_image(), "private/closed")
        proxy = start_proxy({"REGISTRIES": f"{lab.proxy_settings['REGISTRIES']} auth.lab.test"})
        refused = proxy.skopeo().pull(f"{registry.name}/private/closed:latest", tmp_path / "pulled", check=False)
        assert (refused.returncode, "unauthorized" in refused.stderr) == (1, True)

    @pytest.mark.parametrize("registry_name", ["token", "hub"])
    def test_a_client_s_own_password_is_kept(
        self, lab: Lab, authorized: Proxy, build_image: MakeImage, tmp_path: Path, registry_name: str
    ) -> None:
        """A wrong password of the client is refused, though the operator's would be right; a right one is used.

        Not for Basic: there the operator's login opens `/v2/`, and skopeo sees no challenge that it would answer.
        """
        registry: Registry = getattr(lab, registry_name)
        lab.push(build_image(), f"private/own-{registry_name}")
        reference = f"{registry.name}/private/own-{registry_name}:latest"
        skopeo = authorized.skopeo(f"own-{registry_name}")
        refused = skopeo.pull(reference, tmp_path / "wrong", credentials=f"{USERNAME}:wrong", check=False)
        assert refused.returncode == 1
        assert "unauthorized" in refused.stderr or "invalid username/password" in refused.stderr
        assert skopeo.pull(reference, tmp_path / "right", credentials=f"{USERNAME}:{PASSWORD}").returncode == 0

    def test_a_wrong_password_of_a_client_is_401(self, lab: Lab, authorized: Proxy) -> None:
        """What a registry says to a client's own credentials reaches the client with its challenge."""
        own = {"Authorization": "Basic " + base64.b64encode(b"alice:wrong").decode()}
        answer = authorized.client().get(f"https://{lab.basic.name}/v2/", own)
        assert answer.status == 401
        assert answer.header("WWW-Authenticate").startswith("Basic ")
        assert authorized.client().get(f"https://{lab.basic.name}/v2/").status == 200

    def test_a_wrong_password_of_the_operator_is_401(self, lab: Lab, start_proxy: StartProxy) -> None:
        """Credentials that the registry does not take are the registry's answer and no crash."""
        proxy = start_proxy({"AUTH_REGISTRIES": f"basic.lab.test:{USERNAME}:{UNIQUE_PASSWORD}"})
        digest = lab.storage.add_blob("app", random_chunks("operator", 1000))
        answer = proxy.client().get(f"https://{lab.basic.name}/v2/app/blobs/{digest}")
        assert answer.status == 401
        assert UNIQUE_PASSWORD not in answer.body.decode() + proxy.log


class TestWhoSeesThem:
    def test_only_the_host_they_are_for(self, authorized: Proxy, start_origin: StartOrigin) -> None:
        """Another registry, a redirect's host and a tunnel get no credentials of the operator."""
        origin, origin2, edge = (
            start_origin(name) for name in ("origin.lab.test", "origin2.lab.test", "edge.lab.test")
        )
        digest = "sha256:" + "a" * 64
        path = f"/v2/app/blobs/{digest}"
        for server in (origin, origin2):
            server.serve("/v2/", Reply(b"{}"))
            server.serve(path, Reply(status=307, headers={"Location": "https://edge.lab.test/b"}))
            authorized.client().get(f"https://{server.name}/v2/")
        edge.serve("/b", Reply(b"no", 404))
        authorized.client().get(f"https://origin.lab.test{path}")
        authorized.client().head(f"https://origin.lab.test{path}")
        assert {request.authorization for request in origin.log.requests()} == {"Basic"}
        assert {request.authorization for request in origin2.log.requests()} == {""}
        assert {request.authorization for request in edge.log.requests()} == {""}

    def test_a_port_is_part_of_who_they_are_for(
        self, lab: Lab, start_proxy: StartProxy, start_origin: StartOrigin
    ) -> None:
        """Credentials for one port are not sent to another port of the same host."""
        origin = start_origin("origin.lab.test")
        origin.serve("/v2/", Reply(b"{}"))
        proxy = start_proxy(
            {"AUTH_REGISTRIES": f"origin.lab.test:8443|bob|{UNIQUE_PASSWORD}", "AUTH_REGISTRY_DELIMITER": "|"}
        )
        assert lab.addresses["origin.lab.test"] == origin.address
        proxy.client().get("https://origin.lab.test:8443/v2/")
        proxy.client().get("https://origin.lab.test/v2/")
        of_clients = origin.log.requests()
        assert [request.authorization for request in of_clients] == ["Basic", ""]

    def test_they_are_in_no_error_log_or_file(
        self, lab: Lab, authorized: Proxy, build_image: MakeImage, start_origin: StartOrigin, tmp_path: Path
    ) -> None:
        """After good and failed pulls, no secret and no token is in an answer, in what was printed, or on the disk."""
        lab.push(build_image(), "private/secrets")
        for name in (lab.basic.name, lab.token.name, HUB if lab.hub.name == HUB else ""):
            authorized.skopeo("secrets").pull(f"{name}/private/secrets:latest", tmp_path / name.replace(".", "-"))
        client = authorized.client()
        origin = start_origin("origin.lab.test")
        origin.serve("/v2/", Reply(b"{}", 500))
        origin.serve("/v2/app/manifests/cut", Reply(b"{}" * 1000, cut_after_bytes=10))
        own = {"Authorization": "Bearer eyJhbGciOiJub25lIn0.e30."}
        answers = [
            client.get("https://origin.lab.test/v2/"),
            client.get("https://origin.lab.test/v2/app/manifests/cut"),
            client.get("https://origin.lab.test/v2/app/manifests/../x", own),
            client.get("https://origin.lab.test/v2/", {"Host": "other.test", **own}),
            client.request("PUT", "https://origin.lab.test/v2/app/manifests/x", own, b"{}"),
        ]
        origin.stop()
        answers += [client.get("https://origin.lab.test/v2/app/manifests/down", fields) for fields in (own, {})]
        answers.append(authorized.request("GET", "/"))
        said = json.dumps([[str(answer.headers), answer.body.decode()] for answer in answers]) + authorized.log
        stored = b"".join(file.read_bytes() for file in authorized.cache_directory.rglob("*") if file.is_file())
        assert '"uri":"/v2/app/manifests/down"' in authorized.log
        assert [secret for secret in SECRETS if secret in said] == []
        assert [secret for secret in SECRETS[:-1] if secret.encode() in stored] == []

    def test_a_setting_that_is_refused_does_not_show_them(self, lab: Lab, start_proxy: StartProxy) -> None:
        """A line about a broken credential names the variable and not the password."""
        del lab
        proxy = start_proxy({"AUTH_REGISTRIES": f"::{UNIQUE_PASSWORD}", "LISTEN_PORT": "none"}, start=False)
        refused = proxy.start_refused()
        assert refused.returncode != 0
        assert UNIQUE_PASSWORD not in refused.stdout + refused.stderr
