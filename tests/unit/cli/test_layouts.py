"""Layouts of others: what is read of them, and what is refused."""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from regproxy.cli.importing import plan
from regproxy.cli.layout_index import FULL_NAME, REF_NAME, closure_of, is_full_name, read_index, written_index
from regproxy.cli.layouts import DirectoryLayout, LayoutError, TarLayout, opened, read_small

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = b"{}"


def digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def descriptor(body: bytes, **annotations: str) -> dict[str, object]:
    return {"mediaType": MANIFEST, "digest": digest_of(body), "size": len(body), "annotations": annotations}


def manifest(**fields: object) -> bytes:
    return json.dumps({"config": {"digest": digest_of(CONFIG)}, "layers": [], **fields}).encode()


def write_layout(directory: Path, *bodies: tuple[bytes, dict[str, str]]) -> Path:
    """Write a layout of manifests that all have one config."""
    blobs = directory / "blobs/sha256"
    blobs.mkdir(parents=True)
    for body in (CONFIG, *(body for body, _ in bodies)):
        (blobs / digest_of(body).removeprefix("sha256:")).write_bytes(body)
    index = {"schemaVersion": 2, "manifests": [descriptor(body, **names) for body, names in bodies]}
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    return directory


def member(name: str, body: bytes = b"x", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    made = tarfile.TarInfo(name)
    made.size = len(body)
    for field, value in fields.items():
        setattr(made, field, value)
    return made, body


def write_tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w") as archive:
        for made, body in members:
            archive.addfile(made, io.BytesIO(body))
    return path


class TestTars:
    @pytest.mark.parametrize(
        ("made", "words"),
        [
            pytest.param(member("../index.json"), "leads out", id="up"),
            pytest.param(member("blobs/../../x"), "leads out", id="up from within"),
            pytest.param(member("/etc/passwd"), "leads out", id="absolute"),
            pytest.param(member("a", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "link", id="symbolic link"),
            pytest.param(member("a", b"", type=tarfile.LNKTYPE, linkname="b"), "link", id="hard link"),
            pytest.param(member("a", b"", type=tarfile.FIFOTYPE), "no plain file", id="pipe"),
            pytest.param(member("a", b"", type=tarfile.CHRTYPE), "no plain file", id="device"),
            pytest.param(
                member("a", b"x" * 512, pax_headers={"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 50)}),
                "sparse",
                id="sparse",
            ),
        ],
    )
    def test_what_no_layout_has_is_refused(
        self, tmp_path: Path, made: tuple[tarfile.TarInfo, bytes], words: str
    ) -> None:
        """By the name of the member, before anything is read."""
        path = write_tar(tmp_path / "a.tar", member("index.json"), made)

        with pytest.raises(LayoutError, match=words):
            TarLayout(path)

    def test_a_name_is_there_once(self, tmp_path: Path) -> None:
        """Two readers could take different ones."""
        with pytest.raises(LayoutError, match="twice"):
            TarLayout(write_tar(tmp_path / "a.tar", member("index.json"), member("./index.json")))

    @pytest.mark.parametrize(
        "spoil",
        [
            pytest.param(lambda path: os.truncate(path, 700), id="cut off"),
            pytest.param(lambda path: path.write_bytes(b"\x1f\x8b" + b"x" * 2000), id="compressed"),
            pytest.param(lambda path: path.write_bytes(b""), id="empty"),
            pytest.param(lambda path: path.unlink(), id="not there"),
        ],
    )
    def test_what_is_no_tar_is_said(self, tmp_path: Path, spoil: Callable[[Path], object]) -> None:
        """One line, that says the path."""
        path = write_tar(tmp_path / "a.tar", member("index.json", b"x" * 2000))
        spoil(path)

        with pytest.raises(LayoutError, match=r"a\.tar"):
            TarLayout(path)

    def test_a_header_that_would_fill_the_memory_is_not_read(self, tmp_path: Path) -> None:
        """Long names are read at once by tarfile; a megabyte is enough for any."""
        path = write_tar(tmp_path / "a.tar", member("index.json"))
        huge = tarfile.TarInfo("././@LongLink")
        huge.type, huge.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
        with path.open("r+b") as file:
            file.write(huge.tobuf(tarfile.GNU_FORMAT))
            file.truncate(1 << 41)

        with pytest.raises(LayoutError, match="header"):
            TarLayout(path)

    def test_a_tar_is_read_as_a_directory_is(self, tmp_path: Path) -> None:
        """Names with and without `./`."""
        body = manifest()
        directory = write_layout(tmp_path / "out", (body, {REF_NAME: "quay.io/team/app:1"}))
        with tarfile.open(tmp_path / "out.tar", "w") as archive:
            archive.add(directory, ".")
        with opened(directory) as one, opened(tmp_path / "out.tar") as other:
            assert read_index(one) == read_index(other)
            assert closure_of(one, read_index(one)[0]) == closure_of(other, read_index(other)[0])
            assert read_index(one)[0].full_name == "quay.io/team/app:1"


class TestDirectories:
    @pytest.mark.parametrize("linked", ["index.json", "blobs", "blobs/sha256"])
    def test_links_are_not_followed(self, tmp_path: Path, linked: str) -> None:
        """Neither of a file nor of a directory on the way."""
        directory = write_layout(tmp_path / "out", (manifest(), {}))
        (directory / linked).rename(tmp_path / "elsewhere")
        (directory / linked).symlink_to(tmp_path / "elsewhere")

        layout = DirectoryLayout(directory)
        with pytest.raises(LayoutError, match="is a link"):
            closure_of(layout, read_index(layout)[0])

    def test_large_files_are_not_read_into_memory(self, tmp_path: Path) -> None:
        """An index of a gigabyte is none."""
        (tmp_path / "index.json").touch()
        os.truncate(tmp_path / "index.json", 1 << 30)

        with pytest.raises(LayoutError, match="are not read"):
            read_small(DirectoryLayout(tmp_path), "index.json")


class TestIndexes:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("quay.io/team/app:1", True),
            ("localhost/app:1", True),
            ("localhost:5000/app@sha256:0", True),
            ("quay.io/team/app", False),
            ("latest", False),
            ("team/app:1", False),
        ],
    )
    def test_a_full_name_says_where_and_what(self, name: str, expected: bool) -> None:
        """Anything else needs `--name`."""
        assert is_full_name(name) == expected

    @pytest.mark.parametrize(
        ("index", "words"),
        [
            ("[]", "no JSON object"),
            ("{", "no JSON object"),
            ("[" * 100_000, "no JSON object"),
            ("{}", "names no manifests"),
            ('{"manifests":[{"digest":"sha256:../../x"}]}', "lower-case"),
            ('{"manifests":[7]}', "no colon"),
            (json.dumps({"manifests": [{"digest": digest_of(b""), "mediaType": "text/html"}]}), "no manifest's"),
        ],
    )
    def test_a_wrong_index_is_refused(self, tmp_path: Path, index: str, words: str) -> None:
        """With what is wrong about it."""
        write_layout(tmp_path / "out", (manifest(), {}))
        (tmp_path / "out/index.json").write_text(index)

        with pytest.raises(LayoutError, match=words):
            read_index(DirectoryLayout(tmp_path / "out"))

    def test_dockers_older_form_is_told_apart(self, tmp_path: Path) -> None:
        """With what to do about it."""
        (tmp_path / "manifest.json").write_text("[]")

        with pytest.raises(LayoutError, match="skopeo copy"):
            read_index(DirectoryLayout(tmp_path))

    def test_the_images_of_a_layout_are_chosen(self, tmp_path: Path) -> None:
        """By their names there; one that is about another one goes with it."""
        app, other = manifest(), manifest(other=1)
        signature = manifest(subject={"digest": digest_of(app)})
        of_signature = manifest(subject={"digest": digest_of(signature)})
        write_layout(
            tmp_path / "out",
            (app, {REF_NAME: "1", FULL_NAME: "quay.io/team/app:1"}),
            (other, {REF_NAME: "two"}),
            (of_signature, {}),
            (signature, {}),
        )
        layout = DirectoryLayout(tmp_path / "out")

        (chosen,) = plan(layout, None, "1")
        assert (chosen.name, chosen.repository, chosen.has_tag) == ("quay.io/team/app:1", "quay.io/team/app", True)
        about = [str(entry.digest) for entry in chosen.referrers]
        assert about == [digest_of(signature), digest_of(of_signature)]
        (renamed,) = plan(layout, "localhost:5000/new:3", "two")
        assert (renamed.repository, renamed.referrers) == ("localhost:5000/new", ())
        (untagged,) = plan(layout, "alpine", "two")
        assert (untagged.name, untagged.repository) == ("alpine:latest", "alpine")
        with pytest.raises(LayoutError, match="two: no registry"):
            plan(layout, None, None)
        with pytest.raises(LayoutError, match="several"):
            plan(layout, "quay.io/a:1", None)
        with pytest.raises(LayoutError, match="no such image in the layout, but 1, two"):
            plan(layout, None, "three")

    def test_a_name_replaces_only_itself(self) -> None:
        """What another tool wrote of an image beside it stays as it was."""
        told = {
            "image": "quay.io/team/app:1",
            "digest": digest_of(b"new"),
            "media_type": MANIFEST,
            "size_bytes": 3,
            "checked_at_s": 12.5,
            "referrer": False,
        }
        before = [
            descriptor(b"old", **{REF_NAME: "quay.io/team/app:1"}),
            descriptor(b"other", **{REF_NAME: "x", "a": "b"}),
        ]

        found = json.loads(written_index([told], before))["manifests"]
        assert [each["digest"] for each in found] == [digest_of(b"other"), digest_of(b"new")]
        assert found[0] == before[1]
        assert found[1]["annotations"]["registry-proxy.checked-at"] == "12"
