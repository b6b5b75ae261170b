"""regproxy.oci.references: what a manifest names."""

import json

import pytest

from regproxy.oci.digest import Digest
from regproxy.oci.references import References, platforms, references

CONFIG, LAYER, OTHER = (Digest.of(name) for name in (b"config", b"layer", b"other"))


def test_a_manifest_names_its_config_and_layers() -> None:
    """Each once, also when a layer is there twice."""
    layers = [{"digest": str(LAYER)}, {"digest": str(OTHER)}, {"digest": str(LAYER)}]
    body = json.dumps(
        {"config": {"digest": str(CONFIG)}, "layers": layers, "subject": {"digest": str(Digest.of(b"s"))}}
    )

    assert references(body.encode()) == References(blobs=(CONFIG, LAYER, OTHER))


def test_an_index_names_its_manifests() -> None:
    """The platforms' manifests are not blobs."""
    body = json.dumps({"manifests": [{"digest": str(LAYER), "platform": {}}, {"digest": str(OTHER)}]})

    assert references(body.encode()) == References(manifests=(LAYER, OTHER))


def test_an_index_says_which_platforms_there_are() -> None:
    """With the variant, if there is one; what cannot be read has none."""
    described = [
        {"digest": str(LAYER), "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}},
        {"digest": str(OTHER), "platform": {"os": "linux", "architecture": "amd64"}},
        {"digest": str(CONFIG), "platform": 1},
    ]

    assert platforms(json.dumps({"manifests": described}).encode()) == {LAYER: "linux/arm/v7", OTHER: "linux/amd64"}
    assert platforms(b"[]") == platforms(b"{") == {}


def test_the_first_schema_names_its_layers() -> None:
    """Docker's oldest manifests have another word for it."""
    assert references(json.dumps({"fsLayers": [{"blobSum": str(LAYER)}]}).encode()) == References(blobs=(LAYER,))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b'{"layers": 1}',
        b'{"layers": [1, {"digest": 2}, {"digest": "sha256:x"}, {}]}',
        b'{"config": []}',
    ],
)
def test_what_is_no_manifest_names_nothing(body: bytes) -> None:
    """And raises nothing: it came from a registry."""
    assert references(body) == References()
