"""What is pulled: blobs of many sizes, several times more of them than the cache may hold, and images."""

import hashlib
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lab.image import MANIFEST, Image, make_image, random_chunks
from lab.lab import CDN, HUB, Lab

MIB = 1 << 20
HOSTS = ("noauth.lab.test", "redirect.lab.test", HUB)
"""No login and blobs of its own; blobs of a CDN; tokens and blobs of a CDN. All have the same content."""
IMAGES = 6
CACHE_BYTES = 40 * MIB
_REPOSITORY = "soak/blobs"
_SIZES = (*[32 << 10] * 24, *[400 << 10] * 16, *[3 * MIB] * 8, *[20 * MIB] * 3)
"""About 92 MiB. The last are fetched in parts."""


@dataclass(frozen=True, slots=True)
class Piece:
    """Something that clients ask for, and the bytes that they must get."""

    path: str
    """Below `/v2/`."""
    digest: str
    body: bytes
    accept: str = "*/*"


@dataclass(frozen=True, slots=True)
class SoakContent:
    """All of it."""

    pieces: Sequence[Piece]
    weights: Sequence[float]
    """How often each is asked for: small ones more often."""
    images: Sequence[Image]
    references: Sequence[str]
    """`name:tag` of each image."""

    def choose(self, chance: random.Random) -> Piece:
        """Return one."""
        return chance.choices(self.pieces, self.weights)[0]


def make_content(lab: Lab, directory: Path) -> SoakContent:
    """Put it into the registries' storage. Every body is hashed here, so that equal bytes have the right digest."""
    pieces = []
    for number, size_bytes in enumerate(_SIZES):
        body = b"".join(random_chunks(f"soak {number}", size_bytes + number))
        digest = lab.storage.add_blob(_REPOSITORY, [body])
        assert digest == f"sha256:{hashlib.sha256(body).hexdigest()}"
        pieces.append(Piece(f"{_REPOSITORY}/blobs/{digest}", digest, body))
    images, references = [], []
    for number in range(IMAGES):
        image = make_image(directory / f"image-{number}", seed=f"soak {number}", layers=3, layer_bytes=700_000)
        name = f"soak/image-{number}"
        lab.push(image, name)
        images.append(image)
        references.append(f"{name}:latest")
        body = image.read(image.digest)
        pieces += [Piece(f"{name}/manifests/{end}", image.digest, body, MANIFEST) for end in ("latest", image.digest)]
    weights = [1 / len(piece.body) ** 0.3 for piece in pieces]
    return SoakContent(tuple(pieces), weights, tuple(images), tuple(references))


def start_upstreams(lab: Lab) -> None:
    """Start all that the clients ask for."""
    assert {lab.noauth.name, lab.redirect.name, lab.hub.name} == set(HOSTS)
    assert lab.cdn.address == lab.addresses[CDN]
