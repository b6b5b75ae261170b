"""The cases that write: push and content management, and what is read afterwards."""

import json
from collections.abc import Callable

from lab.conformance.reading import ACCEPT, UNKNOWN
from lab.conformance.visit import Placed, Visit, blob, descriptor, manifest
from lab.image import INDEX, MANIFEST

OCTETS = {"Content-Type": "application/octet-stream"}


def push(visit: Visit) -> None:
    """Push: uploads of each kind, then manifests."""
    _streamed(visit)
    _monolithic(visit)
    _chunked(visit)
    _refused_uploads(visit)
    _mounted(visit)
    _manifests(visit)


def management(visit: Visit) -> None:
    """Delete content. What is deleted was pulled before, so that the proxy has it."""
    manifests, blobs = f"/v2/{visit.name}/manifests", f"/v2/{visit.name}/blobs"
    placed = visit.place_manifest("deleted", "first", "second")
    layer = visit.place_blob("deleted blob")
    visit.ask("pull of a tag", "end-3", [200], "GET", f"{manifests}/first", ACCEPT)
    visit.ask("pull of another tag of it", "end-3", [200], "GET", f"{manifests}/second", ACCEPT)
    visit.ask("pull of its digest", "end-3", [200], "GET", f"{manifests}/{placed.digest}", ACCEPT)
    visit.ask("pull of a blob", "end-2", [200], "GET", f"{blobs}/{layer.digest}")
    visit.ask("DELETE of a tag", "end-9", [202, 400, 404, 405], "DELETE", f"{manifests}/first")
    visit.ask("DELETE of a manifest", "end-9", [202, 405], "DELETE", f"{manifests}/{placed.digest}")
    visit.ask("GET of the deleted manifest", "end-3", [404], "GET", f"{manifests}/{placed.digest}", ACCEPT)
    visit.ask("HEAD of the deleted manifest", "end-3", [404], "HEAD", f"{manifests}/{placed.digest}", ACCEPT)
    visit.ask("GET of the other tag", "end-3", [404], "GET", f"{manifests}/second", ACCEPT)
    visit.ask("list of tags afterwards", "end-8a", [200, 404], "GET", f"/v2/{visit.name}/tags/list")
    visit.ask("DELETE of an unknown manifest", "end-9", [404], "DELETE", f"{manifests}/{UNKNOWN}")
    visit.ask("DELETE of a blob", "end-10", [202, 405], "DELETE", f"{blobs}/{layer.digest}")
    visit.ask("HEAD of the deleted blob", "end-2", [404], "HEAD", f"{blobs}/{layer.digest}")
    visit.ask("GET of the deleted blob", "end-2", [404], "GET", f"{blobs}/{layer.digest}")
    visit.ask("DELETE of an unknown blob", "end-10", [404], "DELETE", f"{blobs}/{UNKNOWN}")


def single_writes(visit: Visit) -> None:
    """Each writing request on its own, for ways that refuse all of them."""
    upload = f"/v2/{visit.name}/blobs/uploads/"
    for title, end, method, target in (
        ("POST of an upload", "end-4a", "POST", upload),
        ("PATCH of an upload", "end-5", "PATCH", f"{upload}1"),
        ("PUT of an upload", "end-6", "PUT", f"{upload}1?digest={UNKNOWN}"),
        ("PUT of a manifest", "end-7", "PUT", f"/v2/{visit.name}/manifests/latest"),
        ("DELETE of a manifest", "end-9", "DELETE", f"/v2/{visit.name}/manifests/{UNKNOWN}"),
        ("DELETE of a blob", "end-10", "DELETE", f"/v2/{visit.name}/blobs/{UNKNOWN}"),
    ):
        visit.ask(f"{title} on its own", end, [202, 400, 404, 405], method, target, OCTETS, b"x")


def _start(visit: Visit, kind: str, name: str | None = None) -> str:
    target = f"/v2/{name or visit.name}/blobs/uploads/"
    answer = visit.ask(f"{kind}: POST", "end-4a", [202], "POST", target, {"Content-Length": "0"})
    return answer.header("Location")


def _closed(location: str, digest: str) -> str:
    return f"{location}{'&' if '?' in location else '?'}digest={digest}"


def _read_back(visit: Visit, kind: str, placed: Placed) -> None:
    path = f"/v2/{visit.name}/blobs/{placed.digest}"
    visit.ask(f"{kind}: HEAD of the blob", "end-2", [200], "HEAD", path)
    visit.ask(f"{kind}: GET of the blob", "end-2", [200], "GET", path)


def _streamed(visit: Visit) -> None:
    placed, kind = blob("streamed", 70_000), "streamed upload"
    location = _start(visit, kind)
    pieces = (placed.content[start : start + 10_000] for start in range(0, 70_000, 10_000))
    location = visit.ask(f"{kind}: PATCH", "end-5", [202], "PATCH", location, OCTETS, pieces).header("Location")
    location = visit.ask(f"{kind}: GET of its state", "end-13", [204], "GET", location).headers["Location"] or location
    visit.ask(f"{kind}: PUT", "end-6", [201], "PUT", _closed(location, placed.digest), {"Content-Length": "0"})
    _read_back(visit, kind, placed)


def _monolithic(visit: Visit) -> None:
    placed, kind = blob("monolithic", 5_000), "monolithic upload"
    visit.ask(f"{kind}: HEAD before", "end-2", [404], "HEAD", f"/v2/{visit.name}/blobs/{placed.digest}")
    visit.ask(f"{kind}: GET before", "end-2", [404], "GET", f"/v2/{visit.name}/blobs/{placed.digest}")
    target = _closed(_start(visit, kind), placed.digest)
    visit.ask(f"{kind}: PUT", "end-6", [201], "PUT", target, OCTETS, placed.content)
    _read_back(visit, kind, placed)
    single = blob("single", 5_000)
    target = f"/v2/{visit.name}/blobs/uploads/?digest={single.digest}"
    visit.ask("upload by one POST", "end-4b", [201, 202], "POST", target, OCTETS, single.content)


def _chunked(visit: Visit) -> None:
    placed, kind = blob("chunked", 6_000), "upload in chunks"
    first, second = placed.content[:4_000], placed.content[4_000:]
    location = _start(visit, kind)
    fields = {**OCTETS, "Content-Range": "0-3999"}
    location = visit.ask(f"{kind}: PATCH", "end-5", [202], "PATCH", location, fields, first).header("Location")
    again = visit.ask(f"{kind}: the same PATCH again", "end-5", [416], "PATCH", location, fields, first)
    location = again.headers["Location"] or location
    state = visit.ask(f"{kind}: GET of its state", "end-13", [204], "GET", location)
    fields = {**OCTETS, "Content-Range": "4000-5999"}
    location = state.headers["Location"] or location
    last = visit.ask(f"{kind}: next PATCH", "end-5", [202], "PATCH", location, fields, second)
    target = _closed(last.headers["Location"] or location, placed.digest)
    visit.ask(f"{kind}: PUT", "end-6", [201, 400, 416], "PUT", target, {"Content-Length": "0"})


def _refused_uploads(visit: Visit) -> None:
    wrong = _closed(_start(visit, "wrong digest"), UNKNOWN)
    visit.ask("wrong digest: PUT", "end-6", [400], "PUT", wrong, OCTETS, b"something else")
    none = _start(visit, "no digest")
    visit.ask("no digest: PUT", "end-6", [400], "PUT", none, OCTETS, b"something")
    location = _start(visit, "cancelled upload")
    visit.ask("cancelled upload: DELETE", "end-11", [204], "DELETE", location)
    visit.ask("cancelled upload: GET of its state", "end-13", [404], "GET", location)
    path = f"/v2/{visit.name}/blobs/uploads/00000000-0000-0000-0000-000000000000"
    visit.ask("PATCH of an unknown upload", "end-5", [404], "PATCH", path, OCTETS, b"x")


def _mounted(visit: Visit) -> None:
    placed = visit.place_blob("mounted")
    uploads = f"/v2/{visit.other_name}/blobs/uploads/"
    source = f"{uploads}?mount={placed.digest}&from={visit.name}"
    visit.ask("mount", "end-11", [201, 202], "POST", source, {"Content-Length": "0"})
    visit.ask("GET of the mounted blob", "end-2", [200], "GET", f"/v2/{visit.other_name}/blobs/{placed.digest}")
    absent = f"{uploads}?mount={UNKNOWN}&from={visit.name}"
    visit.ask("mount of an unknown blob", "end-11", [202], "POST", absent, {"Content-Length": "0"})


def _manifests(visit: Visit) -> None:
    manifests = f"/v2/{visit.name}/manifests"
    one = manifest(visit.place_blob("config"), visit.place_blob("layer"))
    two = manifest(visit.place_blob("config"), visit.place_blob("layer"), annotations={"two": "2"})
    put = _putting(visit, manifests)
    visit.ask("GET of a tag before its push", "end-3", [404], "GET", f"{manifests}/moved", ACCEPT)
    put("PUT by tag", "moved", one.content, [201])
    visit.ask("GET of the pushed tag", "end-3", [200], "GET", f"{manifests}/moved", ACCEPT)
    put("PUT of another by the same tag", "moved", two.content, [201])
    visit.ask("GET of the moved tag", "end-3", [200], "GET", f"{manifests}/moved", ACCEPT)
    visit.ask("HEAD of the moved tag", "end-3", [200], "HEAD", f"{manifests}/moved", ACCEPT)
    put("PUT by digest", one.digest, one.content, [201])
    visit.ask("GET of the pushed digest", "end-3", [200], "GET", f"{manifests}/{one.digest}", ACCEPT)
    put("PUT by a wrong digest", UNKNOWN, one.content, [400])
    put("PUT of no manifest", "broken", b"{", [400])
    absent = manifest(visit.place_blob("config"), blob("nowhere", 10))
    put("PUT of a manifest without its layer", "absent", absent.content, [400, 404])
    subject = manifest(visit.place_blob("config"), visit.place_blob("layer"), subject=descriptor(MANIFEST, one))
    put("PUT of a manifest with a subject", subject.digest, subject.content, [201])
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(MANIFEST, one)]}
    put("PUT of an index", "index", json.dumps(index).encode(), [201], INDEX)
    visit.ask("list of the pushed tags", "end-8a", [200], "GET", f"/v2/{visit.name}/tags/list")


def _putting(visit: Visit, manifests: str) -> Callable[..., None]:
    def put(title: str, reference: str, content: bytes, wanted: list[int], media_type: str = MANIFEST) -> None:
        visit.ask(title, "end-7", wanted, "PUT", f"{manifests}/{reference}", {"Content-Type": media_type}, content)

    return put
