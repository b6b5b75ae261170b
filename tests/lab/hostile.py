"""The form of a case of a misbehaving origin, and how it reads in docs/hostile-upstreams.md."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

from lab.image import CONFIG, LAYER, MANIFEST, random_chunks
from lab.misbehaviour import Content, Step
from regproxy.oci.digest import Digest


class Place(Enum):
    """What the client asks for when it happens."""

    BLOB = "blob"
    SMALL_BLOB = "small blob"
    """Not larger than what is held back until the digest is right."""
    TAG = "manifest by tag"
    DIGEST = "manifest by digest"
    TOKEN = "token"
    """The proxy's own request for a token; the client has asked for a manifest by tag."""
    CLIENT_TOKEN = "client's own token request"


@dataclass(frozen=True, slots=True)
class Whole:
    """The right content, if `retried` only after the proxy has asked again."""

    retried: bool = False

    def __str__(self) -> str:
        return "the content, after another request upstream" if self.retried else "the content"


@dataclass(frozen=True, slots=True)
class Refused:
    """An OCI error; `words` are in it and in the access log."""

    words: str
    status: int = 502

    def __str__(self) -> str:
        return f"{self.status}: … {self.words} …"


@dataclass(frozen=True, slots=True)
class Relayed:
    """The upstream's own answer, `words` in the log only."""

    status: int
    words: str = ""

    def __str__(self) -> str:
        return f"the upstream's {self.status}"


@dataclass(frozen=True, slots=True)
class Cut:
    """A head, and a connection that is cut before the last byte; `words` are in the access log."""

    words: str

    def __str__(self) -> str:
        return f"a cut connection; log: … {self.words} …"


@dataclass(frozen=True, slots=True)
class Through:
    """The upstream's bytes as they come, for the client to check; `words` are in the access log."""

    words: str

    def __str__(self) -> str:
        return f"the bytes as they come, unchecked; log: … {self.words} …"


@dataclass(frozen=True, slots=True)
class StandIn:
    """A token of the proxy's own that opens what is stored; `words` are in the access log."""

    words: str

    def __str__(self) -> str:
        return f"a token of the proxy's own; log: … {self.words} …"


type Outcome = Whole | Refused | Relayed | Cut | Through | StandIn

BLOBS = (Place.BLOB, Place.SMALL_BLOB)
MANIFESTS = (Place.TAG, Place.DIGEST)


def everywhere(outcome: Outcome, *places: Place) -> dict[Place, Outcome]:
    """Return the same outcome for several places."""
    return dict.fromkeys(places, outcome)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One way to misbehave."""

    does: str
    """What the origin does; the name of the case."""
    answers: tuple[tuple[Step, ...], ...]
    """What it does with one request after the other; with all further ones the last, or an honest answer if `heals`."""
    client: Mapping[Place, Outcome]
    heals: bool = False
    makes: Callable[[str], Content] | None = None
    """Makes the content where it is the content that is wrong."""
    recovers: bool = True
    """False: the proxy does not ask again at once when the origin has become good."""
    is_flood: bool = False
    """Whether the proxy's memory is watched meanwhile."""


def _digest(content: bytes) -> str:
    return str(Digest.of(content))


def blob(seed: str, size_bytes: int = 100_000) -> Content:
    """Return bytes that belong to this seed alone."""
    content = b"".join(random_chunks(seed, size_bytes))
    return Content(content, "application/octet-stream", _digest(content))


def manifest(seed: str, **more: object) -> Content:
    """Return an image manifest that belongs to this seed alone, with other keys or other values."""
    config, layer = _digest(f"config {seed}".encode()), _digest(f"layer {seed}".encode())
    fields: dict[str, object] = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {"mediaType": CONFIG, "digest": config, "size": 2},
        "layers": [{"mediaType": LAYER, "digest": layer, "size": 3}],
        "annotations": {"seed": seed},
    }
    content = json.dumps(fields | more).encode()
    return Content(content, MANIFEST, _digest(content))


def document(make: Callable[[str], bytes], media_type: str = MANIFEST) -> Callable[[str], Content]:
    """Return what makes a content of these bytes."""

    def made(seed: str) -> Content:
        content = make(seed)
        return Content(content, media_type, _digest(content))

    return made


def token(seed: str) -> Content:
    """Return the answer of a token server."""
    content = json.dumps({"token": f"opaque-{Digest.of(seed.encode()).hex[:12]}", "expires_in": 300}).encode()
    return Content(content, "application/json", _digest(content))


def markdown(cases: tuple[Case, ...]) -> list[str]:
    """Return the rows of the table: the case, where it happens, what the client gets, what is stored."""
    rows = []
    for case in cases:
        places_of: dict[Outcome, list[str]] = {}
        for place, outcome in case.client.items():
            places_of.setdefault(outcome, []).append(place.value)
        for outcome, places in places_of.items():
            kept = "the content" if isinstance(outcome, Whole) else "nothing"
            rows.append(f"| {case.does} | {', '.join(places)} | {outcome} | {kept} |")
    return rows
