"""What a run stands on: the upstream with its content, and one instance of every peer that is warm and stays.

A cold row gets a fresh instance with an empty cache, which is thrown away afterwards.
"""

import contextlib
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.clients import curl
from bench.peers import Instance, Peer, Site
from bench.peers.base import Addresses
from bench.sizes import (
    LARGE_LAYER_BYTES,
    LARGE_LAYERS,
    SLOWLY_READ_BLOB_BYTES,
    SMALL_LAYER_BYTES,
    SMALL_LAYERS,
    Sizes,
)
from bench.upstream import Door, Upstream
from lab.addresses import AddressBlock
from lab.image import Image, make_image
from lab.pki import create_pki

_UPSTREAM_HOSTS = {Door.FAST: 1, Door.SLOW: 2, Door.PLAIN: 3}
_WARM_DOORS = (Door.FAST, Door.PLAIN)
_MOST_WARMING_PULLS = 5
_FILLS_FOR_S = 1.0
"""docker-registry fills its cache after it has answered: each look waits so much longer."""

TAG = "latest"


@dataclass(frozen=True, slots=True)
class Content:
    """Paths of what the upstream serves."""

    large_blob: str
    slowly_read_blob: str
    cold_blob: str
    small_image: Image
    large_image: Image
    small_name: str = "bench/small"
    large_name: str = "bench/large"

    @property
    def manifest(self) -> str:
        """The small image's manifest, by tag."""
        return f"/v2/{self.small_name}/manifests/{TAG}"

    @property
    def small_pull(self) -> Sequence[str]:
        """What a pull of the small image gets, in order."""
        return (self.manifest, *(f"/v2/{self.small_name}/blobs/{digest}" for digest in self.small_image.blobs))


class Stage:
    """Everything of one run. Use it as a context manager: all ends with it, and `directory` stays to be removed."""

    def __init__(self, directory: Path, sizes: Sizes) -> None:
        self.directory = directory
        self.sizes = sizes
        self._cleanup = ExitStack()
        self._fresh = 0
        block = AddressBlock.claim()
        self._cleanup.callback(block.release)
        self._addresses = Addresses(block)
        pki = create_pki(directory / "pki", [door.value for door in Door], block.hosts())
        addresses = {door: block.address(host) for door, host in _UPSTREAM_HOSTS.items()}
        self.upstream = Upstream(directory / "upstream", pki, addresses)
        self.content = self._make_content()
        self.warm: dict[str, Instance] = {}

    def __enter__(self) -> Self:
        """Start the upstream."""
        try:
            self.upstream.start()
        except BaseException:
            self._cleanup.close()
            raise
        self._cleanup.callback(self.upstream.stop)
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def start(self, peer: Peer) -> None:
        """Start the instance of a peer that stays."""
        instance = peer.start(self._site(peer.name, _WARM_DOORS))
        self._cleanup.callback(instance.close)
        self.warm[peer.name] = instance

    @contextlib.contextmanager
    def fresh(self, peer: Peer) -> Iterator[Instance]:
        """Yield an instance with an empty cache before the slow upstream; it is gone afterwards."""
        self._fresh += 1
        site = self._site(f"{peer.name}-{self._fresh}", (Door.SLOW,))
        instance = peer.start(site)
        try:
            yield instance
        finally:
            instance.close()
            shutil.rmtree(site.directory, ignore_errors=True)

    def heat(self, peer: Peer, door: Door, path: str) -> bool:
        """Pull until the upstream hears of it no more; False for a cache that goes on asking."""
        target = self.warm[peer.name].targets[door]
        for attempt in range(_MOST_WARMING_PULLS if peer.caches else 1):
            time.sleep(attempt * _FILLS_FOR_S)
            mark = self.upstream.mark()
            curl(target, path)
            if self.upstream.gets_since(mark, path) == 0:
                return True
        return not peer.caches

    def _site(self, name: str, doors: tuple[Door, ...]) -> Site:
        return Site(self.directory / name, doors, self.upstream, self._addresses)

    def _make_content(self) -> Content:
        sizes, upstream = self.sizes, self.upstream
        content = Content(
            large_blob=upstream.add_blob("bench/large-blob", sizes.large_blob_bytes),
            slowly_read_blob=upstream.add_blob("bench/slowly-read", SLOWLY_READ_BLOB_BYTES),
            cold_blob=upstream.add_blob("bench/cold", sizes.cold_blob_bytes),
            small_image=make_image(
                self.directory / "small", seed="small", layers=SMALL_LAYERS, layer_bytes=SMALL_LAYER_BYTES
            ),
            large_image=make_image(
                self.directory / "large", seed="large", layers=LARGE_LAYERS, layer_bytes=LARGE_LAYER_BYTES
            ),
        )
        upstream.add_image(content.small_name, content.small_image, TAG)
        upstream.add_image(content.large_name, content.large_image, TAG)
        return content
