"""An old cache and an old CA go on working: what a predecessor left is verified, taken in and served."""

import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from lab.fixtures import MakeImage, StartProxy
from lab.image import INDEX, MANIFEST, Image
from lab.lab import CDN, Lab
from lab.old_cache import COREWEAVE, GMARCY, RPARDINI, Kind, Predecessor, cache_file, tree_bytes, write_cache_file
from lab.proxy import Proxy
from lab.registry import Registry
from lab.skopeo import Skopeo, hash_files

pytestmark = pytest.mark.e2e

STATUS = "X-Docker-Registry-Proxy-Cache-Upstream-Status"
ANY_MANIFEST = {"Accept": f"{INDEX}, {MANIFEST}"}


def wait_until(is_true: Callable[[], bool], what: str, limit_s: float = 20) -> None:
    """Return when a condition of another process holds; AssertionError when it does not in time."""
    deadline_s = time.monotonic() + limit_s
    while not is_true():
        assert time.monotonic() < deadline_s, f"in vain: {what}"
        time.sleep(0.02)


def adopted(proxy: Proxy) -> str:
    """Wait for the end of the adoption and return its last line."""
    wait_until(lambda: "old cache: done" in proxy.log, "the old cache is taken in")
    return next(line for line in reversed(proxy.log.splitlines()) if "old cache: done" in line)


def stored(proxy: Proxy) -> set[str]:
    """Return the digests of the content files."""
    return {f"sha256:{path.name}" for path in proxy.cache_directory.glob("content/sha256/*/*")}


@dataclass(frozen=True, slots=True)
class Old:
    """An image that was pulled through a predecessor, and the proxy that is to inherit its cache."""

    registry: Registry
    name: str
    image: Image
    proxy: Proxy
    """Not started."""

    def path(self, digest: str) -> str:
        """Return the path of a manifest or blob."""
        kind = "manifests" if digest in self.image.manifests else "blobs"
        return f"/v2/{self.name}/{kind}/{digest}"

    def url(self, digest: str) -> str:
        """Return the URL of a manifest or blob."""
        return f"https://{self.registry.name}{self.path(digest)}"

    def file(self, digest: str) -> Path:
        """Return the predecessor's file of a manifest or blob."""
        return cache_file(self.proxy.cache_directory, self.path(digest))


@pytest.fixture
def leave_cache(lab: Lab, start_proxy: StartProxy, build_image: MakeImage, tmp_path: Path) -> Callable[..., Old]:
    """Return what makes an image, pulls it through a predecessor by tag, and stops that."""

    def leave_one(
        name: str,
        settings: dict[str, str] | None = None,
        registry: Registry | None = None,
        kind: Kind = RPARDINI,
        layer_bytes: int = 100_000,
    ) -> Old:
        registry = registry or lab.other
        image = build_image(layers=3, layer_bytes=layer_bytes, architectures=("amd64", "arm64"))
        lab.push(image, name, to=lab.other if registry is lab.other else lab.noauth)
        proxy = start_proxy(settings, start=False)
        cdn = lab.cdn.address if registry is lab.redirect else registry.address
        with Predecessor(
            tmp_path / "predecessor", proxy.cache_directory, (registry.name, registry.address), (CDN, cdn), kind
        ) as old:
            client = Skopeo(tmp_path / "old-client", lab.pki.ca_file)
            for source in (f"{name}:latest", f"{name}@{image.digest}"):
                reference = f"docker://{old.address}/{source}"
                client.run(["copy", "--all", "--src-tls-verify=false", reference, f"dir:{tmp_path / 'before'}"])
        return Old(registry, name, image, proxy)

    return leave_one


class TestOldCache:
    def test_an_image_of_the_old_cache_pulls_with_the_registry_gone(
        self, lab: Lab, leave_cache: Callable[..., Old], tmp_path: Path
    ) -> None:
        """Every manifest and blob is a HIT, a real client gets the whole image, and the old files stay as they were.

        Nobody knows whose the old content is: it is everybody's if the operator says so.
        """
        old = leave_cache("adoption/whole", {"PRIVATE_IMAGES": "share"})
        before = tree_bytes(old.proxy.cache_directory)
        old.proxy.start()
        assert "took in 11 contents" in adopted(old.proxy)
        assert stored(old.proxy) == {*old.image.blobs, *old.image.manifests}
        client = old.proxy.client()
        with lab.other.stopped():
            for digest in old.image.blobs:
                answer = client.get(old.url(digest))
                assert (answer.status, answer.header(STATUS)) == (200, "HIT")
                assert answer.body == old.image.read(digest)
            for digest, media_type in old.image.manifests.items():
                answer = client.get(old.url(digest), ANY_MANIFEST)
                assert (answer.status, answer.header(STATUS)) == (200, "HIT")
                assert (answer.header("Content-Type"), answer.body) == (media_type, old.image.read(digest))
            reference = f"{old.registry.name}/{old.name}@{old.image.digest}"
            old.proxy.skopeo().pull(reference, tmp_path / "pulled", all_platforms=True)
        assert hash_files(tmp_path / "pulled") == hash_files(tmp_path / "before")
        assert tree_bytes(old.proxy.cache_directory) == before

    def test_a_pull_by_tag_asks_for_the_tag_and_for_no_blob(
        self, leave_cache: Callable[..., Old], tmp_path: Path
    ) -> None:
        """The tag of the old cache is not believed: the registry says what it means, and that it has the rest."""
        old = leave_cache("adoption/tagged")
        assert cache_file(old.proxy.cache_directory, f"/v2/{old.name}/manifests/latest").exists()
        old.proxy.start()
        assert "1 are not named by a digest" in adopted(old.proxy)
        mark = old.registry.log.mark()
        old.proxy.skopeo().pull(f"{old.registry.name}/{old.name}:latest", tmp_path / "pulled", all_platforms=True)
        assert mark.count(method="GET", path_contains="/blobs/") == 0
        assert mark.count(method="GET", path_contains="/manifests/") == 1
        assert mark.count(method="GET", path_contains="/manifests/latest") == 1
        assert hash_files(tmp_path / "pulled") == hash_files(tmp_path / "before")

    def test_a_truncated_and_a_corrupt_file_are_fetched_anew(
        self, leave_cache: Callable[..., Old], tmp_path: Path
    ) -> None:
        """What does not hash to its digest is not taken in; the pull gets these two from the registry and is right."""
        old = leave_cache("adoption/damaged")
        truncated, corrupt = old.image.layers[:2]
        file = old.file(truncated)
        file.write_bytes(file.read_bytes()[:-1])
        file = old.file(corrupt)
        file.write_bytes(file.read_bytes()[:-1] + bytes([file.read_bytes()[-1] ^ 1]))
        old.proxy.start()
        assert "2 do not hold what they are named after" in adopted(old.proxy)
        assert stored(old.proxy) == {*old.image.blobs, *old.image.manifests} - {truncated, corrupt}
        mark = old.registry.log.mark()
        old.proxy.skopeo().pull(f"{old.registry.name}/{old.name}:latest", tmp_path / "pulled", all_platforms=True)
        asked = {request.path.rpartition("/")[2] for request in mark.requests(method="GET", path_contains="/blobs/")}
        assert asked == {truncated, corrupt}
        assert hash_files(tmp_path / "pulled") == hash_files(tmp_path / "before")

    def test_content_that_came_by_a_redirect_is_taken_in(self, lab: Lab, leave_cache: Callable[..., Old]) -> None:
        """The predecessor stored it under the key of the first request, with the storage's head."""
        old = leave_cache("adoption/redirected", registry=lab.redirect)
        old.proxy.start()
        adopted(old.proxy)
        assert stored(old.proxy) == {*old.image.blobs, *old.image.manifests}

    @pytest.mark.parametrize("kind", [COREWEAVE, GMARCY], ids=["coreweave", "gmarcy"])
    @pytest.mark.parametrize("redirected", [False, True], ids=["served by the registry", "redirected"])
    def test_a_cache_in_slices_is_put_together(
        self, lab: Lab, leave_cache: Callable[..., Old], kind: Kind, *, redirected: bool
    ) -> None:
        """The forks keep slices apart, but what came by a redirect whole; a missing slice leaves its blob out."""
        registry = lab.redirect if redirected else lab.other
        old = leave_cache("adoption/sliced", registry=registry, kind=kind, layer_bytes=2_500_000)
        missing = set[str]()
        if not redirected:
            layer = old.image.layers[0]
            key = layer.replace("sha256:", "GET") if kind is GMARCY else old.path(layer)
            cache_file(old.proxy.cache_directory, f"{key}bytes=1048576-2097151").unlink()
            missing.add(layer)
        old.proxy.start()
        adopted(old.proxy)
        assert stored(old.proxy) == {*old.image.blobs, *old.image.manifests} - missing

    def test_it_happens_once(self, leave_cache: Callable[..., Old]) -> None:
        """A second start does not look at the old cache again: what was evicted since does not come back."""
        old = leave_cache("adoption/once")
        old.proxy.start()
        adopted(old.proxy)
        old.proxy.restart()
        old.proxy.stop()
        assert old.proxy.log.count("old cache: found") == 1

    def test_move_leaves_only_what_was_not_taken_in(self, lab: Lab, leave_cache: Callable[..., Old]) -> None:
        """With OLD_CACHE=move each file goes once its content is stored; tags and damaged files are left alone."""
        old = leave_cache("adoption/moved", {"OLD_CACHE": "move"})
        damaged = old.file(old.image.layers[0])
        damaged.write_bytes(damaged.read_bytes()[:-1])
        tag = cache_file(old.proxy.cache_directory, f"/v2/{old.name}/manifests/latest")
        old.proxy.start()
        adopted(old.proxy)
        assert set(old.proxy.cache_directory.glob("?/??/*")) == {damaged, tag}
        assert set(old.proxy.cache_directory.glob("?")) == {damaged.parents[1], tag.parents[1]}
        with lab.other.stopped():
            assert old.proxy.client().get(old.url(old.image.layers[1])).status == 403
        # Once the registry has said that it gives it to everybody, it does not have to say so again.
        deadline_s = time.monotonic() + 20
        while old.proxy.client().get(old.url(old.image.layers[1])).status != 200:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        with lab.other.stopped():
            answer = old.proxy.client().get(old.url(old.image.layers[1]))
        assert (answer.header(STATUS), answer.body) == ("HIT", old.image.read(old.image.layers[1]))

    def test_ignore_does_not_look(self, leave_cache: Callable[..., Old]) -> None:
        """With OLD_CACHE=ignore the files stay, and nothing is taken in."""
        old = leave_cache("adoption/ignored", {"OLD_CACHE": "ignore"})
        before = tree_bytes(old.proxy.cache_directory)
        old.proxy.start().stop()
        assert "old cache" not in old.proxy.log
        assert stored(old.proxy) == set()
        assert tree_bytes(old.proxy.cache_directory) == before

    def test_a_stop_in_the_middle_is_obeyed_and_the_next_start_goes_on(self, leave_cache: Callable[..., Old]) -> None:
        """A file of many GiB is being hashed: the proxy serves meanwhile, ends in time, leaves no copy behind."""
        old = leave_cache("adoption/stopped")
        huge = write_cache_file(old.proxy.cache_directory, old.path(f"sha256:{'0' * 64}"), b"")
        os.truncate(huge, 4 << 30)  # a hole; used last of all, so it comes first
        old.proxy.start()
        copies = old.proxy.cache_directory / "partial"
        wait_until(lambda: any(path.stat().st_size for path in copies.glob("adoption-*")), "the huge file is copied")
        assert old.proxy.client().get(old.url(old.image.layers[0])).status == 200
        assert old.proxy.stop() == 0
        assert "old cache: done" not in old.proxy.log
        huge.unlink()
        old.proxy.start()
        adopted(old.proxy)
        assert list(copies.glob("adoption-*")) == []
        assert stored(old.proxy) == {*old.image.blobs, *old.image.manifests}


def openssl(*arguments: str) -> str:
    """Run openssl, and return what it prints on both outputs; AssertionError with it when it fails."""
    completed = subprocess.run(
        ["openssl", *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=60,
        check=False,
    )
    assert completed.returncode == 0, completed.stdout
    return completed.stdout


def make_ca(directory: Path, *key: str, made_with: str = "foobar", is_ca: str = "TRUE") -> None:
    """Make ca.key and ca.crt with the openssl commands of the predecessor's create_ca_cert.sh."""
    directory.mkdir(parents=True)
    configuration = directory.with_name("openssl.cnf")
    configuration.write_text(
        "[req]\ndistinguished_name = dn\n[dn]\n[IA]\n"
        f"basicConstraints = critical,CA:{is_ca}\n"
        "keyUsage = critical, digitalSignature, cRLSign, keyCertSign\n"
        "subjectKeyIdentifier = hash\n"
    )
    openssl(*key[:1], "-out", str(directory / "ca.key"), *key[1:])
    openssl(
        *("req", "-new", "-x509", "-days", "1300", "-sha256", "-key", str(directory / "ca.key")),
        *("-out", str(directory / "ca.crt"), "-passin", f"pass:{made_with}", "-config", str(configuration)),
        *("-extensions", "IA", "-subj", "/C=NL/O=ME/CN=DockerMirrorBox CA Root"),
    )


class TestOldAuthority:
    @pytest.mark.parametrize(
        ("key", "settings"),
        [
            pytest.param(("genrsa", "-des3", "-passout", "pass:foobar", "4096"), {}, id="RSA with foobar"),
            pytest.param(("ecparam", "-name", "prime256v1", "-genkey"), {}, id="EC in clear"),
            pytest.param(
                ("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384", "-aes256", "-pass", "pass:own"),
                {"CERT_PASSWORD": "own"},
                id="EC with CERT_PASSWORD",
            ),
        ],
    )
    def test_clients_that_trust_the_old_ca_go_on_working(
        self, lab: Lab, start_proxy: StartProxy, key: tuple[str, ...], settings: dict[str, str]
    ) -> None:
        """OpenSSL verifies the leaf with nothing but the old ca.crt; `/ca.crt` is that file; nothing is written."""
        proxy = start_proxy(settings, start=False)
        make_ca(proxy.ca_directory, *key, made_with=settings.get("CERT_PASSWORD", "foobar"))
        proxy.ca_directory.chmod(0o555)
        before = {path.name: path.read_bytes() for path in proxy.ca_directory.iterdir()}
        changed_ns = proxy.ca_directory.stat().st_mtime_ns
        proxy.start()
        said = openssl(
            *("s_client", "-proxy", str(proxy.address), "-connect", f"{lab.noauth.name}:443"),
            *("-servername", lab.noauth.name, "-verify_hostname", lab.noauth.name, "-verify_return_error"),
            *("-CAfile", str(proxy.ca_file), "-no-CApath", "-no-CAstore"),
        )
        assert "Verify return code: 0 (ok)" in said
        assert proxy.request("GET", "/ca.crt").body == before["ca.crt"]
        assert {path.name: path.read_bytes() for path in proxy.ca_directory.iterdir()} == before
        assert proxy.ca_directory.stat().st_mtime_ns == changed_ns

    def test_a_certificate_that_is_no_ca_is_refused_in_one_line(self, start_proxy: StartProxy) -> None:
        """The line names the file, instead of every client failing without a word about it here."""
        proxy = start_proxy(start=False)
        make_ca(proxy.ca_directory, "ecparam", "-name", "prime256v1", "-genkey", is_ca="FALSE")
        completed = proxy.start_refused()
        (line,) = completed.stderr.splitlines()
        assert completed.returncode == 1
        assert str(proxy.ca_directory / "ca.crt") in line
        assert "not that of a CA" in line
