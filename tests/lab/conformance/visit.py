"""One run of the cases by one way, and what was answered."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from lab.conformance.ways import Body, Way
from lab.http_client import Response
from lab.image import CONFIG, LAYER, MANIFEST, random_chunks
from lab.lab import Lab

NAMED_FIELDS = (
    *("Content-Type", "Content-Length", "Docker-Content-Digest", "Location", "Range", "Content-Range", "Link"),
    *("OCI-Subject", "OCI-Filters-Applied", "OCI-Chunk-Min-Length", "OCI-Namespace", "Docker-Upload-UUID"),
    *("Accept-Ranges", "ETag", "WWW-Authenticate", "Allow", "Warning", "Docker-Distribution-API-Version"),
)
"""What the distribution specification says of an answer, and the fields of RFC 9110 that its requests rest on."""

REGISTRY = "noauth.lab.test"

_CHANGING = (
    (re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "SESSION"),
    (re.compile(r"_state=[\w%=-]+"), "_state=STATE"),
    (re.compile(r"expires=[\d.]+&verify=\w+-\w+"), "SIGNATURE"),
)
"""What is another in each answer, and the word that stands for it."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one case was answered; names of repositories and upload sessions are replaced by words."""

    title: str
    end: str
    """The endpoint of the specification, `end-2`."""
    wanted: Sequence[int]
    """The statuses that the specification allows."""
    status: int
    fields: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Placed:
    """Content that a registry has."""

    digest: str
    content: bytes


@dataclass(slots=True)
class Visit:
    """Asks the cases of one chapter by one way, and keeps the outcomes."""

    lab: Lab
    way: Way
    turn: int
    """The first time nothing of it is in the proxy's cache."""
    chapter: str
    host: str = REGISTRY
    writes: bool = False
    placed: set[str] = field(default_factory=set)
    """The paths of manifests that are in the registry already."""
    outcomes: list[Outcome] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The repository of the chapter; what is written has one for each way and turn."""
        return f"conformance/{self._own_word}/{self.chapter}" if self.writes else f"conformance/{self.chapter}"

    @property
    def other_name(self) -> str:
        """Another repository of the same way and turn."""
        return f"{self.name}-other"

    @property
    def _own_word(self) -> str:
        return f"{self.way.word}{self.turn}"

    def ask(
        self,
        title: str,
        end: str,
        wanted: Sequence[int],
        method: str,
        target: str,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
    ) -> Response:
        """Ask one case and keep what was answered; `target` may be a Location."""
        parts = urlsplit(target)
        origin_form = parts.path + (f"?{parts.query}" if parts.query else "")
        response = self.way.send(method, self.host, origin_form, headers or {}, body)
        fields = {name: self._seen(value) for name in NAMED_FIELDS if (value := response.headers[name]) is not None}
        # a repository's name is in lists and errors, and in no content
        content = response.body.replace(self._own_word.encode(), b"WAY") if self.writes else response.body
        self.outcomes.append(Outcome(title, end, tuple(wanted), response.status, fields, content))
        return response

    def place_blob(self, seed: str, size_bytes: int = 5_000) -> Placed:
        """Have a blob in the repository, straight in the registry's storage."""
        content = blob(f"{self.chapter} {seed}", size_bytes)
        return Placed(self.lab.storage.add_blob(self.name, [content.content]), content.content)

    def place_manifest(self, seed: str, *tags: str, **more: object) -> Placed:
        """Have a manifest of two blobs in the repository, straight in the registry."""
        config, layer = self.place_blob(f"{seed} config", 100), self.place_blob(f"{seed} layer", 100)
        made = manifest(config, layer, **more)
        for reference in (made.digest, *tags):
            self.put_straight(f"/v2/{self.name}/manifests/{reference}", MANIFEST, made.content)
        return made

    def put_straight(self, path: str, media_type: str, content: bytes) -> None:
        """Put a manifest straight into the registry, once; AssertionError when it does not take it."""
        if path in self.placed:
            return
        answer = self.lab.client.request("PUT", f"https://{REGISTRY}{path}", {"Content-Type": media_type}, content)
        assert answer.status == 201, answer.body
        self.placed.add(path)

    def _seen(self, text: str) -> str:
        seen = self.way.seen(self.host, text)
        if self.writes:
            seen = seen.replace(self._own_word, "WAY")
        for pattern, word in _CHANGING:
            seen = pattern.sub(word, seen)
        return seen


def blob(seed: str, size_bytes: int) -> Placed:
    """Return reproducible bytes and their digest."""
    content = b"".join(random_chunks(f"conformance {seed}", size_bytes))
    return Placed(f"sha256:{hashlib.sha256(content).hexdigest()}", content)


def manifest(config: Placed, layer: Placed, **more: object) -> Placed:
    """Return an image manifest."""
    document = {
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": descriptor(CONFIG, config),
        "layers": [descriptor(LAYER, layer)],
        **more,
    }
    content = json.dumps(document).encode()
    return Placed(f"sha256:{hashlib.sha256(content).hexdigest()}", content)


def descriptor(media_type: str, placed: Placed) -> dict[str, object]:
    """Return the descriptor of content."""
    return {"mediaType": media_type, "digest": placed.digest, "size": len(placed.content)}
