"""Export and import: images go to a proxy that reaches no registry, and real clients pull them there."""

import hashlib
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from e2e.test_admin import ACCEPT, API, REGISTRY, ask, pull
from e2e.test_admin_command import run
from lab.fixtures import MakeImage, StartProxy
from lab.image import MANIFEST, Image
from lab.lab import Lab
from lab.proxy import Proxy
from lab.skopeo import Skopeo, hash_files

pytestmark = pytest.mark.e2e

AMD64 = "linux/amd64"


@pytest.fixture
def offline(start_proxy: StartProxy) -> Proxy:
    """Start a proxy with an empty cache that asks no registry."""
    return start_proxy({"OFFLINE": "true"})


@pytest.fixture
def tools(lab: Lab, tmp_path: Path) -> Skopeo:
    """Return skopeo for layouts: it reaches nothing."""
    return Skopeo(tmp_path / "tools", lab.pki.ca_file)


@pytest.fixture(scope="module")
def refusing(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Yield one proxy for all that is refused."""
    with lab.proxy(tmp_path_factory.mktemp("refusing"), {"OFFLINE": "true"}) as running:
        yield running


def names_of(directory: Path) -> list[str]:
    """Return what a layout's images are called."""
    index = json.loads((directory / "index.json").read_text())
    return [each.get("annotations", {}).get("org.opencontainers.image.ref.name", "") for each in index["manifests"]]


def about(image: Image, subject: str) -> Image:
    """Return an image that says that it is about another one, in its layout."""
    manifest = {
        **json.loads(image.read(image.digest)),
        "subject": {"digest": subject, "mediaType": MANIFEST, "size": 1},
    }
    body = json.dumps(manifest).encode()
    changed = replace(image, digest=f"sha256:{hashlib.sha256(body).hexdigest()}")
    changed.file(changed.digest).write_bytes(body)
    index = json.loads((image.layout / "index.json").read_text())
    index["manifests"][0] |= {"digest": changed.digest, "size": len(body)}
    (image.layout / "index.json").write_text(json.dumps(index))
    return changed


class TestAnAirGap:
    @pytest.mark.parametrize("form", ["directory", "tar"])
    def test_an_exported_image_is_pulled_where_no_registry_is(
        self, lab: Lab, proxy: Proxy, offline: Proxy, build_image: MakeImage, tmp_path: Path, tools: Skopeo, form: str
    ) -> None:
        """By tag and by digest, with skopeo, byte for byte; a layer needs several pieces."""
        image = build_image(architectures=("amd64", "arm64"), layers=1, layer_bytes=9_000_000)
        digest = lab.push(image, "team/gap", "1.0")
        name = f"{REGISTRY}/team/gap:1.0"
        output = tmp_path / ("out.tar" if form == "tar" else "out")

        exported = json.loads(run(proxy, "export", name, "-o", str(output), "--fetch", "--platform", "all", "--json"))
        assert [each["digest"] for each in exported["images"]] == [digest]
        source = f"oci-archive:{output}:{name}" if form == "tar" else f"oci:{output}:{name}"
        inspected = json.loads(tools.run(["inspect", source]).stdout)
        assert inspected["Architecture"] == "amd64"
        tools.run(["copy", "--all", source, f"dir:{tmp_path / 'copied'}"])
        assert len(hash_files(tmp_path / "copied")) == 8
        assert name in run(offline, "import", str(output))
        offline.skopeo("tag").pull(name, tmp_path / "by-tag", all_platforms=True)
        offline.skopeo("digest").pull(f"{REGISTRY}/team/gap@{digest}", tmp_path / "by-digest", all_platforms=True)
        lab.skopeo.run(["copy", "--all", image.source, f"dir:{tmp_path / 'original'}"])
        assert (
            hash_files(tmp_path / "by-tag") == hash_files(tmp_path / "by-digest") == hash_files(tmp_path / "original")
        )

    def test_what_is_stored_is_exported_and_what_is_missing_is_named(
        self, lab: Lab, proxy: Proxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """Without a platform those that are stored; of another one, and of a purged blob, the names are told."""
        lab.push(build_image(architectures=("amd64", "arm64")), "team/part")
        name = f"{REGISTRY}/team/part:latest"
        run(proxy, "warm", name, "--platform", AMD64)
        output = tmp_path / "out"

        assert name in run(proxy, "export", name, "-o", str(output))
        assert len(list((output / "blobs/sha256").iterdir())) == 5
        lacking = run(proxy, "export", name, "-o", str(tmp_path / "no"), "--platform", "all", code=1, stdout=True)
        assert "the manifest is not stored" in lacking
        assert "none of linux/vax is in it, but linux/amd64, linux/arm64" in run(
            proxy, "export", name, "-o", str(tmp_path / "no"), "--platform", "linux/vax", code=1, stdout=True
        )
        (blob,) = [each["digest"] for each in ask(proxy, "GET", "/export", target=name)["contents"]][-1:]
        ask(proxy, "POST", "/purge", target=blob)
        told = json.loads(run(proxy, "export", name, "-o", str(tmp_path / "no"), "--json", code=1, stdout=True))
        assert [each["digest"] for each in told["missing"]] == [blob]
        unknown = run(proxy, "export", f"{REGISTRY}/team/none:1", "-o", str(tmp_path / "no"), code=1, stdout=True)
        assert "nothing of it is stored" in unknown
        assert not (tmp_path / "no").exists()

    def test_a_directory_holds_several_images_and_is_completed(
        self, lab: Lab, proxy: Proxy, offline: Proxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """A second export adds to the first; a damaged blob is written anew; all come in by one import."""
        output = tmp_path / "out"
        names = [f"{REGISTRY}/team/several-{number}:1" for number in range(2)]
        for number, name in enumerate(names):
            lab.push(build_image(str(number)), f"team/several-{number}", "1")
            run(proxy, "export", name, "-o", str(output), "--fetch")
        assert names_of(output) == names
        damaged = max((output / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
        sound = damaged.read_bytes()
        damaged.write_bytes(b"x" * len(sound))

        run(proxy, "export", *names, "-o", str(output))
        assert damaged.read_bytes() == sound
        assert names_of(output) == names
        run(offline, "import", str(output))
        stored = {each["image"]: each["complete"] for each in ask(offline, "GET", "/images")["images"]}
        assert stored == dict.fromkeys(names, True)

    def test_signatures_go_with_an_image(
        self, lab: Lab, proxy: Proxy, offline: Proxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """One that names it as its subject, and one by cosign's tag, if they are stored."""
        image, name = build_image(), f"{REGISTRY}/team/signed:1"
        lab.push(image, "team/signed", "1")
        signature = about(build_image("signature"), image.digest)
        lab.push(signature, "team/signed", "signature")
        tag = image.digest.replace(":", "-") + ".sig"
        cosigns = build_image("cosign's")
        lab.push(cosigns, "team/signed", tag)
        for reference in (signature.digest, tag, "1"):
            pull(proxy, "team/signed", reference)

        run(proxy, "export", name, "-o", str(tmp_path / "out"))
        assert sorted(names_of(tmp_path / "out")) == sorted(["", name, f"{REGISTRY}/team/signed:{tag}"])
        run(offline, "import", str(tmp_path / "out"))
        assert pull(offline, "team/signed", tag)[0].header("Docker-Content-Digest") == cosigns.digest
        assert pull(offline, "team/signed", signature.digest)[0].body == signature.read(signature.digest)

    def test_the_registry_has_the_last_word_where_it_is_reached(
        self, lab: Lab, start_proxy: StartProxy, proxy: Proxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """What was imported as a private image is given to whom the registry lets read, while it answers."""
        image = build_image()
        lab.push(image, "team/private", "1")
        run(proxy, "export", f"{REGISTRY}/team/private:1", "-o", str(tmp_path / "out"), "--fetch")
        connected = start_proxy()
        name = "basic.lab.test/team/private"
        assert lab.basic.address
        run(connected, "import", str(tmp_path / "out"), "--name", f"{name}:1")

        url = f"https://basic.lab.test/v2/team/private/blobs/{image.layers[0]}"
        assert connected.client().get(url).status == 401
        assert "NOBODY" not in run(connected, "why", f"{name}:1")
        with lab.basic.stopped():
            outage = connected.client().get(url)
            assert (outage.status, outage.body) == (200, image.read(image.layers[0]))
            tag = connected.client().get("https://basic.lab.test/v2/team/private/manifests/1", ACCEPT)
            assert (tag.status, tag.header("Docker-Content-Digest")) == (200, image.digest)


class TestLayoutsOfOthers:
    def test_a_layout_of_skopeo_is_imported_by_a_name(
        self, offline: Proxy, build_image: MakeImage, tmp_path: Path, tools: Skopeo
    ) -> None:
        """Its tag alone says no registry; with two images in it one has to be chosen."""
        image = build_image()
        for tag in ("one", "two"):
            tools.run(
                ["copy", build_image(tag).source if tag == "two" else image.source, f"oci:{tmp_path / 'out'}:{tag}"]
            )
        name = f"{REGISTRY}/team/skopeo:1"

        assert "say --name" in run(offline, "import", str(tmp_path / "out"), code=1)
        assert "choose with --ref" in run(offline, "import", str(tmp_path / "out"), "--name", name, code=1)
        run(offline, "import", str(tmp_path / "out"), "--name", name, "--ref", "one")
        assert pull(offline, "team/skopeo", "1")[0].header("Docker-Content-Digest") == image.digest

    def test_an_archive_of_podmans_is_imported(
        self, offline: Proxy, build_image: MakeImage, tmp_path: Path, tools: Skopeo
    ) -> None:
        """`podman save --format oci-archive` writes as skopeo does: with a full name, none has to be given."""
        image, name = build_image(), f"{REGISTRY}/team/podman:1"
        tools.run(["copy", image.source, f"oci-archive:{tmp_path / 'out.tar'}:{name}"])

        assert name in run(offline, "import", str(tmp_path / "out.tar"))
        assert pull(offline, "team/podman", "1")[0].header("Docker-Content-Digest") == image.digest

    def test_an_image_index_of_docker_save_is_imported(
        self, offline: Proxy, build_image: MakeImage, tmp_path: Path
    ) -> None:
        """It has the full name where containerd has it, and a `manifest.json` beside the layout."""
        image, name = build_image(architectures=("amd64", "arm64")), f"{REGISTRY}/team/docker:1"
        index = json.loads((image.layout / "index.json").read_text())
        index["manifests"][0]["annotations"] = {
            "io.containerd.image.name": name,
            "org.opencontainers.image.ref.name": "1",
        }
        (image.layout / "index.json").write_text(json.dumps(index))
        (image.layout / "manifest.json").write_text("[]")
        with tarfile.open(tmp_path / "saved.tar", "w") as archive:
            archive.add(image.layout, ".")

        assert name in run(offline, "import", str(tmp_path / "saved.tar"))
        answer = offline.client().get(f"https://{REGISTRY}/v2/team/docker/manifests/1", ACCEPT)
        assert answer.header("Docker-Content-Digest") == image.digest


def wrong_blob(_: Path, layer: Path) -> None:
    """Change a byte of a layer."""
    content = bytearray(layer.read_bytes())
    content[len(content) // 2] ^= 1
    layer.write_bytes(content)


def missing_blob(_: Path, layer: Path) -> None:
    """Take a layer away."""
    layer.unlink()


def linked_blob(layout: Path, layer: Path) -> None:
    """Let a layer be a link."""
    layer.rename(layout / "elsewhere")
    layer.symlink_to(layout / "elsewhere")


def climbing_digest(layout: Path, _: Path) -> None:
    """Let the index name a file elsewhere."""
    text = (layout / "index.json").read_text()
    index = json.loads(text)
    index["manifests"][0]["digest"] = "sha256:../../../../etc/passwd"
    (layout / "index.json").write_text(json.dumps(index))


def huge_manifest(layout: Path, _: Path) -> None:
    """Let the manifest be larger than a manifest may be."""
    digest = json.loads((layout / "index.json").read_text())["manifests"][0]["digest"]
    os.truncate(layout / "blobs" / digest.replace(":", "/"), 1 << 40)


class TestWhatIsRefused:
    @pytest.mark.parametrize(
        ("damage", "words"),
        [
            (wrong_blob, "hashes to"),
            (missing_blob, "needs what the layout does not have"),
            (linked_blob, "is a link"),
            (climbing_digest, "lower-case hexadecimal"),
            (huge_manifest, "are not read"),
        ],
    )
    def test_a_wrong_layout_leaves_no_image(
        self, refusing: Proxy, build_image: MakeImage, damage: Callable[[Path, Path], None], words: str
    ) -> None:
        """The error says what is wrong; neither tag nor manifest nor wrong blob is stored."""
        image = build_image(layers=1)
        damage(image.layout, image.file(image.layers[0]))

        said = run(refusing, "import", str(image.layout), "--name", f"{REGISTRY}/team/wrong:1", code=1)
        assert words in said
        assert "Traceback" not in said
        assert ask(refusing, "GET", "/images")["images"] == []
        wrong = image.layers[0].removeprefix("sha256:")
        assert damage is huge_manifest or not list(refusing.cache_directory.glob(f"content/*/*/{wrong}"))

    def test_the_api_itself_takes_nothing_unverified(self, refusing: Proxy, build_image: MakeImage) -> None:
        """Whatever its client checked: a wrong blob, a manifest before its blobs, a tag before its manifest."""
        image = build_image()
        body = image.read(image.digest)
        layer, other = image.read(image.layers[0]), image.layers[1]

        def put(path: str, body: bytes | None, length: str | None = None) -> tuple[int, str]:
            headers = {} if length is None else {"Content-Length": length}
            answer = refusing.request("PUT", f"{API}{path}", headers, body)
            return answer.status, answer.body.decode()

        content = f"/content?digest={other}&size_bytes={len(layer)}"
        wrong = put(content, layer)
        assert wrong[0] == 400
        assert "hashes to" in wrong[1]
        assert put(f"{content}&offset=7", layer[7:])[0] == 409
        assert put(f"/content?digest={other}&size_bytes=9", None)[0] in (200, 409)
        manifest = f"/manifests?target={REGISTRY}/team/api@{image.digest}&media_type="
        assert "upload what it names first" in put(f"{manifest}{quote(image.media_type)}", body)[1]
        assert put(f"{manifest}text/html", body)[0] == 400
        assert (
            put(f"/manifests?target=unknown.example/a@{image.digest}&media_type={quote(image.media_type)}", body)[0]
            == 400
        )
        assert put(f"/tags?target={REGISTRY}/team/api:1&digest={image.digest}", None)[0] == 400
        assert put(content, b"", str(1 << 40))[0] == 413
        assert ask(refusing, "GET", "/images", target=f"{REGISTRY}/team/api")["images"] == []
        assert "is not stored" in ask(refusing, "GET", "/content", 404, digest=other)["error"]

    def test_an_interrupted_upload_goes_on_where_it_was(self, refusing: Proxy, build_image: MakeImage) -> None:
        """What came is told to whoever asks; the last piece makes it content."""
        image = build_image(layers=1)
        layer = image.read(image.layers[0])
        path = f"{API}/content?digest={image.layers[0]}&size_bytes={len(layer)}"

        first = json.loads(refusing.request("PUT", path, {}, layer[:60_000]).body)
        assert first == {"digest": image.layers[0], "received_bytes": 60_000, "stored": False}
        assert json.loads(refusing.request("PUT", path).body) == first
        last = json.loads(refusing.request("PUT", f"{path}&offset=60000", {}, layer[60_000:]).body)
        assert last == {"digest": image.layers[0], "received_bytes": len(layer), "stored": True}
        stored = refusing.request("GET", f"{API}/content?digest={image.layers[0]}")
        assert stored.body == layer
