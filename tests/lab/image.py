"""Images for the lab, as OCI layouts, reproducible from their seed.

A layer is one file of pseudo-random bytes in a tar, gzipped as stored blocks: a valid layer that costs no compression.
It is written piece by piece, so a layer of a GiB needs no GiB of memory.
"""

import hashlib
import json
import random
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"

_TAG = "image"
_PIECE_BYTES = 1 << 20
_CREATED = "2026-01-01T00:00:00Z"

type _Descriptor = dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Image:
    """One image or image index in a layout of its own."""

    layout: Path
    digest: str
    """Of the manifest, or of the index when there are several platforms."""
    media_type: str
    manifests: Mapping[str, str]
    """Media type by digest, of the index and of each manifest."""
    blobs: tuple[str, ...]
    """Digests of configurations and layers."""
    layers: tuple[str, ...]

    @property
    def source(self) -> str:
        """The image as skopeo names it."""
        return f"oci:{self.layout}:{_TAG}"

    def file(self, digest: str) -> Path:
        """Return the file of a manifest or blob."""
        return self.layout / "blobs" / digest.replace(":", "/", 1)

    def read(self, digest: str) -> bytes:
        """Return the bytes of a manifest or blob."""
        return self.file(digest).read_bytes()


def make_image(
    directory: Path,
    *,
    seed: str = "image",
    layers: int = 2,
    layer_bytes: int = 100_000,
    architectures: Sequence[str] = ("amd64",),
) -> Image:
    """Write a layout to the new folder `directory`; more than one architecture makes an image index."""
    blob_directory = directory / "blobs/sha256"
    blob_directory.mkdir(parents=True)
    platforms: list[tuple[str, _Descriptor]] = []
    blobs: list[str] = []
    layer_digests: list[str] = []
    for architecture in architectures:
        pairs = [_write_layer(blob_directory, f"{seed}/{architecture}/{n}", layer_bytes) for n in range(layers)]
        config = _write(blob_directory, CONFIG, _config(seed, architecture, [diff_id for _, diff_id in pairs]))
        descriptors = [descriptor for descriptor, _ in pairs]
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": descriptors}
        platforms.append((architecture, _write(blob_directory, MANIFEST, manifest)))
        layer_digests += [str(descriptor["digest"]) for descriptor in descriptors]
        blobs.append(str(config["digest"]))
    top = platforms[0][1]
    if len(platforms) > 1:
        entries = [{**entry, "platform": {"architecture": name, "os": "linux"}} for name, entry in platforms]
        top = _write(blob_directory, INDEX, {"schemaVersion": 2, "mediaType": INDEX, "manifests": entries})
    _write_layout(directory, top)
    return Image(
        layout=directory,
        digest=str(top["digest"]),
        media_type=str(top["mediaType"]),
        manifests={str(entry["digest"]): str(entry["mediaType"]) for entry in (top, *(p[1] for p in platforms))},
        blobs=(*blobs, *layer_digests),
        layers=tuple(layer_digests),
    )


def random_chunks(seed: str, size_bytes: int) -> Iterator[bytes]:
    """Yield `size_bytes` pseudo-random bytes in pieces."""
    source = random.Random(seed)  # noqa: S311 - reproducible bytes are wanted, not secrets
    for start in range(0, size_bytes, _PIECE_BYTES):
        yield source.randbytes(min(_PIECE_BYTES, size_bytes - start))


def _config(seed: str, architecture: str, diff_ids: Sequence[str]) -> Mapping[str, object]:
    return {
        "created": _CREATED,
        "architecture": architecture,
        "os": "linux",
        "config": {"Cmd": ["/bin/true"], "Labels": {"lab.seed": seed}},
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids)},
        "history": [{"created": _CREATED, "created_by": f"layer {n}"} for n in range(len(diff_ids))],
    }


def _write(blob_directory: Path, media_type: str, document: Mapping[str, object]) -> _Descriptor:
    content = json.dumps(document, separators=(",", ":")).encode()
    hexadecimal = hashlib.sha256(content).hexdigest()
    (blob_directory / hexadecimal).write_bytes(content)
    return {"mediaType": media_type, "digest": f"sha256:{hexadecimal}", "size": len(content)}


def _tar_chunks(seed: str, size_bytes: int) -> Iterator[bytes]:
    entry = tarfile.TarInfo("data/" + hashlib.sha256(seed.encode()).hexdigest()[:12])
    entry.size, entry.mode = size_bytes, 0o644
    yield entry.tobuf()
    yield from random_chunks(seed, size_bytes)
    yield bytes(-size_bytes % tarfile.BLOCKSIZE + 2 * tarfile.BLOCKSIZE)


def _write_layer(blob_directory: Path, seed: str, size_bytes: int) -> tuple[_Descriptor, str]:
    """Return the layer's descriptor and its diff id."""
    incoming = blob_directory / "incoming"
    diff_id, digest = hashlib.sha256(), hashlib.sha256()
    compressor = zlib.compressobj(level=0, wbits=31)
    with incoming.open("wb") as target:
        for chunk in _tar_chunks(seed, size_bytes):
            diff_id.update(chunk)
            packed = compressor.compress(chunk)
            digest.update(packed)
            target.write(packed)
        packed = compressor.flush()
        digest.update(packed)
        target.write(packed)
        written_bytes = target.tell()
    incoming.rename(blob_directory / digest.hexdigest())
    descriptor: _Descriptor = {
        "mediaType": LAYER,
        "digest": f"sha256:{digest.hexdigest()}",
        "size": written_bytes,
    }
    return descriptor, f"sha256:{diff_id.hexdigest()}"


def _write_layout(directory: Path, top: _Descriptor) -> None:
    entry = {**top, "annotations": {"org.opencontainers.image.ref.name": _TAG}}
    (directory / "oci-layout").write_text(json.dumps({"imageLayoutVersion": "1.0.0"}))
    (directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
