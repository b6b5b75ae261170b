"""Which images are stored: the tags that are known, and manifests that were asked for by digest."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from regproxy.oci.digest import Digest
from regproxy.oci.references import References
from regproxy.policy.closure import Graph, closure, missing
from regproxy.policy.targets import Target
from regproxy.stack.admin.queries import COUNT, FLAG, NUMBER, TEXT, Json, Schema, array, nullable, record
from regproxy.store.content import Store
from regproxy.store.inventory import NamedTag, StoredRow
from regproxy.store.pins import Pin
from regproxy.store.sources import Source


@dataclass(frozen=True, slots=True)
class Image:
    """One name, and what it means."""

    registry: str
    name: str
    tag: str | None
    """None for a manifest that was only asked for by digest."""
    digest: Digest
    media_type: str
    checked_at_s: float | None
    """When the registry last said so; None for one without a tag, and for an imported one of unknown age."""
    previous: Digest | None
    """What the tag meant before."""
    source: Source | None

    @property
    def text(self) -> str:
        """The name as people write it."""
        return f"{self.registry}/{self.name}" + (f":{self.tag}" if self.tag is not None else f"@{self.digest}")

    def is_meant_by(self, target: Target) -> bool:
        """Whether it is among what an operator means."""
        return target.selects(self.registry, self.name, self.tag or str(self.digest)) or target.selects(
            self.registry, self.name, str(self.digest)
        )


@dataclass(frozen=True, slots=True)
class Stock:
    """All that is stored, as of one moment."""

    contents: Mapping[Digest, StoredRow]
    graph: Graph
    images: tuple[Image, ...]
    tags: tuple[NamedTag, ...]
    sources: tuple[Source, ...]
    pins: tuple[Pin, ...]

    def of(self, image: Image) -> frozenset[Digest]:
        """Return what belongs to an image."""
        return closure([image.digest], self.graph)

    def size_bytes(self, digests: Iterable[Digest]) -> int:
        """Return what these take on the disk."""
        return sum(self.contents[digest].size_bytes for digest in digests if digest in self.contents)

    def used_at_s(self, image: Image) -> float | None:
        """Return when a manifest of an image was last asked for: layers may be asked for by others."""
        named = self.graph.get(image.digest)
        manifests = [image.digest, *(named.manifests if named else ())]
        times = [self.contents[digest].used_at_s for digest in manifests if digest in self.contents]
        return max(times, default=None)

    def is_complete(self, image: Image) -> bool:
        """Whether all is there that a client needs; of an index, of one platform at least."""
        named = self.graph.get(image.digest)
        if named is None or missing(image.digest, self.graph, self.contents.keys()):
            return False
        return not named.manifests or any(digest in self.contents for digest in named.manifests)

    def is_pinned(self, digest: Digest) -> bool:
        """Whether eviction passes a content over."""
        return any(digest in pin.digests for pin in self.pins)


async def take_stock(store: Store, only: Iterable[Target] | None = None) -> Stock:
    """Look at all that is stored; with `only`, manifests of others are not read. Raises StoreError."""
    inventory = store.inventory
    contents = await inventory.contents()
    tags, sources = await inventory.tags(), await inventory.sources()
    graph: dict[Digest, References] = {}
    waiting = set(contents)
    if only is not None:
        targets = list(only)
        meant = [image for image in _images(contents, {}, tags, sources) if any(map(image.is_meant_by, targets))]
        bare = [target.reference for target in targets if isinstance(target.reference, Digest)]
        waiting = {image.digest for image in meant} | set(bare)
    while waiting:
        read = await inventory.graph(contents[digest] for digest in waiting if digest in contents)
        graph |= read
        named = {digest for each in read.values() for digest in each.manifests}
        waiting = named - graph.keys() if only is not None else set()
    return Stock(
        contents,
        graph,
        tuple(_images(contents, graph, tags, sources)),
        tuple(tags),
        tuple(sources),
        tuple(await inventory.pins()),
    )


def _images(
    contents: Mapping[Digest, StoredRow], graph: Graph, tags: list[NamedTag], sources: list[Source]
) -> list[Image]:
    by_place = {(source.registry, source.name, source.digest): source for source in sources}
    found: dict[tuple[str, str, str, Digest], Image] = {}
    tagged: dict[tuple[str, str], set[Digest]] = defaultdict(set)
    for tag in sorted(tags, key=lambda each: each.record.checked_at_s):
        descriptor, previous = tag.record.descriptor, tag.record.previous
        tagged[tag.registry, tag.name] |= closure([descriptor.digest], graph)
        found[tag.registry, tag.name, tag.tag, descriptor.digest] = Image(
            tag.registry,
            tag.name,
            tag.tag,
            descriptor.digest,
            descriptor.media_type,
            tag.record.checked_at_s or None,
            None if previous is None else previous.digest,
            by_place.get((tag.registry, tag.name, descriptor.digest)),
        )
    untagged = [each for each in sources if each.digest not in tagged[each.registry, each.name]]
    for source in untagged:
        # A platform's manifest belongs to its index, if that is known here.
        named = graph.get(source.digest)
        tagged[source.registry, source.name].update(named.manifests if named else ())
    for source in untagged:
        if source.digest in contents and source.digest not in tagged[source.registry, source.name]:
            media_type = contents[source.digest].media_type
            key = (source.registry, source.name, "", source.digest)
            found[key] = Image(source.registry, source.name, None, source.digest, media_type, None, None, source)
    return sorted(found.values(), key=lambda image: image.text)


IMAGE: Schema = record(
    image=TEXT,
    registry=TEXT,
    repository=TEXT,
    tag=nullable(TEXT),
    digest=TEXT,
    media_type=TEXT,
    size_bytes=COUNT,
    complete=FLAG,
    pinned=FLAG,
    checked_age_s=nullable(NUMBER),
    fetched_age_s=nullable(NUMBER),
    used_age_s=nullable(NUMBER),
)
"""`complete`: nothing is missing that a client needs; of an index, of the platforms that were pulled."""

IMAGES: Schema = record(images=array(IMAGE), size_bytes=COUNT)


def described(image: Image, stock: Stock, now_s: float) -> dict[str, Json]:
    """Describe one image; sizes are on the disk, and what two images share counts for each."""
    return {
        "image": image.text,
        "registry": image.registry,
        "repository": image.name,
        "tag": image.tag,
        "digest": str(image.digest),
        "media_type": image.media_type,
        "size_bytes": stock.size_bytes(stock.of(image)),
        "complete": stock.is_complete(image),
        "pinned": stock.is_pinned(image.digest),
        "checked_age_s": age_s(image.checked_at_s, now_s),
        "fetched_age_s": age_s(None if image.source is None else image.source.fetched_at_s, now_s),
        "used_age_s": age_s(stock.used_at_s(image), now_s),
    }


def age_s(at_s: float | None, now_s: float) -> float | None:
    """Return how long ago something was, in seconds with one decimal."""
    return None if at_s is None else round(max(0.0, now_s - at_s), 1)


def list_images(stock: Stock, target: Target | None, now_s: float) -> dict[str, Json]:
    """Describe all images that are meant; `size_bytes` counts what they share once."""
    images = [image for image in stock.images if target is None or image.is_meant_by(target)]
    together = frozenset[Digest]().union(*(stock.of(image) for image in images))
    return {
        "images": [described(image, stock, now_s) for image in images],
        "size_bytes": stock.size_bytes(together),
    }
