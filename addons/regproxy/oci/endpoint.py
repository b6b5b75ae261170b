"""Which endpoint of the registry API a request addresses.

OCI distribution-spec 1.1, "Endpoints" (end-1 to end-13), plus `/v2/_catalog` and the dead `/v1` API. The request target
is parsed once, by the grammar of the specification, before any part of it becomes a cache key, a file name or an
upstream URL: a path that looks like content but breaks the grammar is an `EndpointError`, never a guess.

The query is not interpreted here, and nothing here decides how an endpoint is answered.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import assert_never
from urllib.parse import unquote_to_bytes

from regproxy.oci.digest import Digest
from regproxy.oci.errors import ErrorCode
from regproxy.oci.names import Tag, parse_repository_name, parse_tag
from regproxy.oci.wording import shown


class EndpointError(ValueError):
    """A request target that no registry may be asked for."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        """The error code to answer with."""


@dataclass(frozen=True, slots=True)
class Ping:
    """end-1, `/v2/`: does this host speak the protocol, and may I."""


@dataclass(frozen=True, slots=True)
class Blob:
    """end-2 and end-10: a blob by digest."""

    name: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class Manifest:
    """end-3, end-7 and end-9: a manifest by tag or digest."""

    name: str
    reference: Tag | Digest


@dataclass(frozen=True, slots=True)
class BlobUpload:
    """end-4 to end-6, end-11, end-13: the start of an upload, or an upload session."""

    name: str


@dataclass(frozen=True, slots=True)
class Tags:
    """end-8, `/v2/<name>/tags/list`."""

    name: str


@dataclass(frozen=True, slots=True)
class Referrers:
    """end-12: the manifests whose subject is a digest."""

    name: str
    digest: Digest


@dataclass(frozen=True, slots=True)
class Catalog:
    """`/v2/_catalog`: not in the specification, but most registries have it."""


@dataclass(frozen=True, slots=True)
class V1:
    """Anything of the registry API that came before `/v2/`."""


@dataclass(frozen=True, slots=True)
class Other:
    """Everything else: token endpoints, web pages, storage."""

    path: str
    """The target without its query, as it was sent."""


type Endpoint = Ping | Blob | Manifest | BlobUpload | Tags | Referrers | Catalog | V1 | Other

# Slashes and backslashes that only appear after decoding, and NUL: no name, tag or digest holds one, and storage
# back ends disagree about what they mean.
_HIDDEN_SEPARATOR = re.compile(r"[/\\\x00]")
_DECODINGS = 3
_UPLOAD_METHODS = frozenset({"POST", "PATCH"})


def parse_endpoint(method: str, target: str) -> Endpoint:
    """Return the endpoint of a request.

    `target` is the origin-form of RFC 9112 section 3.2.1, as received: path and optional query, not decoded. A target
    of another form is `Other`. Raises EndpointError when the path has dot segments or NUL, or addresses the registry
    API with a name, tag or digest outside the grammar.
    """
    path = target.partition("?")[0]
    if not path.startswith("/"):
        return Other(path)
    segments = [_decode_once(segment) for segment in path[1:].split("/")]
    _refuse_dot_segments(segments, path)
    match segments:
        case ["v1", *_]:
            return V1()
        case ["v2", *rest]:
            return _parse_v2(method, rest, path)
        case _:
            _refuse_hidden_api(path)
            return Other(path)


def build_path(endpoint: Blob | Manifest) -> str:
    """Return the canonical path of content; `parse_endpoint` of it gives the same endpoint."""
    match endpoint:
        case Blob(name, digest):
            return f"/v2/{name}/blobs/{digest}"
        case Manifest(name, reference):
            return f"/v2/{name}/manifests/{reference}"
        case _:
            assert_never(endpoint)


def _parse_v2(method: str, segments: Sequence[str], path: str) -> Endpoint:
    """Read what follows `/v2/`."""
    if any(_HIDDEN_SEPARATOR.search(segment) for segment in segments):
        raise EndpointError(ErrorCode.NAME_INVALID, f"path {shown(path)} has an encoded slash or backslash")
    if segments in ([], [""]):
        return Ping()
    if segments == ["_catalog"]:
        return Catalog()
    # POST and PATCH exist for uploads alone, so they settle the one ambiguity: /v2/a/blobs/uploads/manifests/b.
    upload = _find_upload(segments) if method in _UPLOAD_METHODS else None
    return upload or _parse_end(segments) or _find_upload(segments) or _other(segments, path)


def _parse_end(segments: Sequence[str]) -> Endpoint | None:
    """Recognise an endpoint by its end: a name may itself have components such as `blobs` or `manifests`."""
    match segments:
        case [*name, "blobs", digest] if digest != "uploads":
            return Blob(_name(name), _digest(digest))
        case [*name, "manifests", reference]:
            return Manifest(_name(name), _reference(reference))
        case [*name, "referrers", digest]:
            return Referrers(_name(name), _digest(digest))
        case [*name, "tags", "list"]:
            return Tags(_name(name))
        case _:
            return None


def _find_upload(segments: Sequence[str]) -> BlobUpload | None:
    """Find `<name>/blobs/uploads` followed by anything: the location of a session belongs to the registry."""
    for index in range(len(segments) - 1, 0, -1):
        if segments[index] == "uploads" and segments[index - 1] == "blobs":
            return BlobUpload(_name(segments[: index - 1]))
    return None


def _other(segments: Sequence[str], path: str) -> Other:
    """Accept an unknown path under `/v2/` (`/v2/token`, `/v2/auth`), unless it is content with too many parts."""
    for index, segment in enumerate(segments[1:], start=1):
        if segment == "blobs":
            raise EndpointError(ErrorCode.DIGEST_INVALID, f"digest {shown('/'.join(segments[index + 1 :]))} is invalid")
        if segment == "manifests":
            raise EndpointError(ErrorCode.MANIFEST_INVALID, f"tag {shown('/'.join(segments[index + 1 :]))} is invalid")
    if segments[-1] == "" and _parse_end(segments[:-1]) is not None:
        raise EndpointError(ErrorCode.NAME_INVALID, f"path {shown(path)} ends with a slash")
    return Other(path)


def _decode_once(segment: str) -> str:
    """Percent-decode one segment; bytes that are not UTF-8 become characters that no grammar accepts."""
    if "%" not in segment:
        return segment
    return unquote_to_bytes(segment.encode("utf-8", "surrogatepass")).decode("utf-8", "replace")


def _refuse_dot_segments(segments: Sequence[str], path: str) -> None:
    for segment in segments:
        parts = _HIDDEN_SEPARATOR.split(segment)
        if "\0" in segment or "." in parts or ".." in parts:
            raise EndpointError(ErrorCode.NAME_INVALID, f"path {shown(path)} has dot segments or NUL")


def _refuse_hidden_api(path: str) -> None:
    """Refuse what a server that decodes twice, or merges slashes, takes for the API: it would pass by every rule."""
    decoded = path
    for _ in range(_DECODINGS):
        decoded = _decode_once(decoded)
    first = next((part for part in re.split(r"[/\\;]+", decoded) if part), "")
    if first.lower() == "v2":
        raise EndpointError(ErrorCode.NAME_INVALID, f"path {shown(path)} hides a path of the registry API")


def _name(components: Sequence[str]) -> str:
    return _checked(parse_repository_name, "/".join(components), ErrorCode.NAME_INVALID)


def _digest(text: str) -> Digest:
    return _checked(Digest.parse, text, ErrorCode.DIGEST_INVALID)


def _reference(text: str) -> Tag | Digest:
    """Tell tag from digest by the colon, which a tag cannot hold."""
    # The specification has no code for a malformed tag; MANIFEST_INVALID is the one that clients expect here.
    return _digest(text) if ":" in text else _checked(parse_tag, text, ErrorCode.MANIFEST_INVALID)


def _checked[T](parse: Callable[[str], T], text: str, code: ErrorCode) -> T:
    try:
        return parse(text)
    except ValueError as error:
        raise EndpointError(code, str(error)) from error
