"""The cases that read: pull, ranges, content discovery, referrers, logins, redirects.

Each case has content of its own where it matters, so that the first turn is cold in each of them.
"""

import json

from lab.conformance.visit import Visit, descriptor
from lab.image import INDEX, MANIFEST
from lab.origin import Origin, Reply

UNKNOWN = "sha256:" + "0" * 64
ACCEPT = {"Accept": f"{MANIFEST}, {INDEX}"}
BASIC = {"Authorization": "Basic YWxpY2U6c2VjcmV0"}
REFERRERS_HOST = "origin.lab.test"
SUBJECT = "sha256:" + "5" * 64
LONELY = "sha256:" + "6" * 64
_SIGNATURE = "application/vnd.example.signature"


def pull(visit: Visit) -> None:
    """Pull blobs and manifests that are there, and that are not."""
    blobs, manifests = f"/v2/{visit.name}/blobs", f"/v2/{visit.name}/manifests"
    visit.ask("support of the API", "end-1", [200], "GET", "/v2/")
    for method in ("HEAD", "GET"):
        visit.ask(f"{method} of a blob", "end-2", [200], method, f"{blobs}/{visit.place_blob(method).digest}")
        visit.ask(f"{method} of an unknown blob", "end-2", [404], method, f"{blobs}/{UNKNOWN}")
        made = visit.place_manifest(method, f"tag-{method}")
        visit.ask(f"{method} of a manifest by digest", "end-3", [200], method, f"{manifests}/{made.digest}", ACCEPT)
        visit.ask(f"{method} of a manifest by tag", "end-3", [200], method, f"{manifests}/tag-{method}", ACCEPT)
        visit.ask(f"{method} of an unknown digest", "end-3", [404], method, f"{manifests}/{UNKNOWN}", ACCEPT)
        visit.ask(f"{method} of an unknown tag", "end-3", [404], method, f"{manifests}/unknown-{method}", ACCEPT)
    _indexes(visit, manifests)
    blob = visit.place_blob("empty", 0)
    visit.ask("GET of an empty blob", "end-2", [200], "GET", f"{blobs}/{blob.digest}")
    large = visit.place_blob("large", 3_000_000)
    visit.ask("GET of a blob of 3 MB", "end-2", [200], "GET", f"{blobs}/{large.digest}")
    _malformed(visit)


def _indexes(visit: Visit, manifests: str) -> None:
    image = visit.place_manifest("in an index")
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(MANIFEST, image)]}
    visit.put_straight(f"{manifests}/index", INDEX, json.dumps(index).encode())
    visit.ask("GET of an index by tag", "end-3", [200], "GET", f"{manifests}/index", ACCEPT)
    visit.ask("GET of the manifest in it", "end-3", [200], "GET", f"{manifests}/{image.digest}", ACCEPT)
    visit.place_manifest("any", "any")
    visit.ask("GET of a manifest without Accept", "end-3", [200, 404], "GET", f"{manifests}/any")
    visit.ask("GET of a manifest, Accept */*", "end-3", [200], "GET", f"{manifests}/any", {"Accept": "*/*"})
    etag = {"If-None-Match": f'"{visit.place_manifest("known", "known").digest}"', **ACCEPT}
    visit.ask("GET of a manifest with its own If-None-Match", "end-3", [304, 200], "GET", f"{manifests}/known", etag)


def _malformed(visit: Visit) -> None:
    name = visit.name
    for title, target in (
        ("a name in capitals", f"/v2/{name.upper()}/manifests/latest"),
        ("a name that begins with a dash", "/v2/-x/manifests/latest"),
        ("a tag that begins with a period", f"/v2/{name}/manifests/.x"),
        ("a tag of 129 characters", f"/v2/{name}/manifests/{'x' * 129}"),
        ("a manifest's digest that is too short", f"/v2/{name}/manifests/sha256:abc"),
        ("a blob's digest that is too short", f"/v2/{name}/blobs/sha256:abc"),
        ("a blob by an unknown algorithm", f"/v2/{name}/blobs/md5:{'0' * 32}"),
        ("a blob by sha512", f"/v2/{name}/blobs/sha512:{'0' * 128}"),
        ("a path that is none", f"/v2/{name}/nothing/latest"),
    ):
        visit.ask(f"GET of {title}", "end-2" if "/blobs/" in target else "end-3", [400, 404], "GET", target)


def ranges(visit: Visit) -> None:
    """Parts of a blob (RFC 9110 section 14)."""
    size_bytes = 5_000
    for title, value, wanted in (
        ("the first 10 bytes", "bytes=0-9", [206]),
        ("one byte", "bytes=7-7", [206]),
        ("from byte 4000", "bytes=4000-", [206]),
        ("the last 10 bytes", "bytes=-10", [206]),
        ("all of it", f"bytes=0-{size_bytes - 1}", [206]),
        ("over its end", "bytes=4990-9999", [206]),
        ("the last 9999 bytes", "bytes=-9999", [206]),
        ("from its end on", f"bytes={size_bytes}-", [416]),
        ("the last 0 bytes", "bytes=-0", [416]),
        ("backwards", "bytes=9-3", [200, 416]),
        ("no number", "bytes=x-y", [200, 416]),
        ("another unit", "lines=0-9", [200, 416]),
        ("two parts", "bytes=0-9,20-29", [200, 206]),
    ):
        path = f"/v2/{visit.name}/blobs/{visit.place_blob(value).digest}"
        visit.ask(f"Range {title}", "end-2", wanted, "GET", path, {"Range": value})
    placed = visit.place_blob("if-range")
    path = f"/v2/{visit.name}/blobs/{placed.digest}"
    for title, validator, wanted in (("its own", placed.digest, [206]), ("another", UNKNOWN, [200])):
        fields = {"Range": "bytes=0-9", "If-Range": f'"{validator}"'}
        visit.ask(f"Range with {title} If-Range", "end-2", wanted, "GET", path, fields)
    known = {"If-None-Match": f'"{placed.digest}"'}
    visit.ask("GET of a blob with its own If-None-Match", "end-2", [304, 200], "GET", path, known)
    visit.ask("HEAD with a Range", "end-2", [200, 206], "HEAD", path, {"Range": "bytes=0-9"})


def discovery(visit: Visit) -> None:
    """List tags, and the referrers of a registry that has no such API: 404, then the tag that stands for it."""
    placed = visit.place_manifest("tagged", *(f"v{number}" for number in range(5)))
    fallback, manifests = placed.digest.replace(":", "-"), f"/v2/{visit.name}/manifests"
    index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": [descriptor(MANIFEST, placed)]}
    visit.put_straight(f"{manifests}/{fallback}", INDEX, json.dumps(index).encode())
    tags = f"/v2/{visit.name}/tags/list"
    visit.ask("list of tags", "end-8a", [200], "GET", tags)
    page = visit.ask("two tags", "end-8b", [200], "GET", f"{tags}?n=2")
    visit.ask("two tags after v1", "end-8b", [200], "GET", f"{tags}?n=2&last=v1")
    visit.ask("no tags", "end-8b", [200], "GET", f"{tags}?n=0")
    visit.ask("tags after the last", "end-8b", [200], "GET", f"{tags}?n=2&last=v4")
    visit.ask("n is no number", "end-8b", [200, 400, 404], "GET", f"{tags}?n=x")
    if (link := page.headers["Link"]) is not None:
        path = link.partition("<")[2].partition(">")[0].replace(f"/v2/{visit.host}/", "/v2/")
        visit.ask("the page that Link names", "end-8b", [200], "GET", path)
    visit.ask("HEAD of the list of tags", "end-8a", [200, 404, 405], "HEAD", tags)
    visit.ask("tags of an unknown repository", "end-8a", [404], "GET", "/v2/conformance/unknown/tags/list")
    visit.ask("referrers, no such API", "end-12a", [200, 404], "GET", f"/v2/{visit.name}/referrers/{placed.digest}")
    visit.ask("its fallback tag, not there", "end-3", [404], "GET", f"{manifests}/{UNKNOWN.replace(':', '-')}", ACCEPT)
    visit.ask("its fallback tag", "end-3", [200], "GET", f"{manifests}/{fallback}", ACCEPT)


def serve_referrers(origin: Origin) -> None:
    """Let a scripted registry have the referrers API."""
    entry = {"mediaType": MANIFEST, "digest": LONELY, "size": 2, "artifactType": _SIGNATURE}
    fields = {"Content-Type": INDEX, "Link": f'</v2/conformance/referrers/referrers/{SUBJECT}?next=1>; rel="next"'}
    origin.serve(
        f"/v2/conformance/referrers/referrers/{SUBJECT}", Reply(_list([entry, entry]), headers=fields, ranges=False)
    )
    filtered = {"Content-Type": INDEX, "OCI-Filters-Applied": "artifactType"}
    origin.serve(f"/v2/conformance/filtered/referrers/{SUBJECT}", Reply(_list([entry]), headers=filtered, ranges=False))
    none = Reply(_list([]), headers={"Content-Type": INDEX}, ranges=False)
    origin.serve(f"/v2/conformance/referrers/referrers/{LONELY}", none)


def _list(entries: list[dict[str, object]]) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()


def referrers(visit: Visit) -> None:
    """List referrers of a registry that has the API."""
    path = f"/v2/{visit.name}/referrers"
    visit.ask("referrers, first page", "end-12a", [200], "GET", f"{path}/{SUBJECT}")
    visit.ask("the next page", "end-12a", [200], "GET", f"{path}/{SUBJECT}?next=1")
    only = f"/v2/conformance/filtered/referrers/{SUBJECT}?artifactType={_SIGNATURE}"
    visit.ask("referrers of one artifactType", "end-12b", [200], "GET", only)
    visit.ask("no referrers", "end-12a", [200], "GET", f"{path}/{LONELY}")
    visit.ask("referrers of a digest that is too short", "end-12a", [400, 404], "GET", f"{path}/sha256:abc")


def logins(visit: Visit) -> None:
    """Read from a registry that wants a login (RFC 9110 section 11)."""
    placed = visit.place_manifest("secret", "latest")
    paths = ("/v2/", f"/v2/{visit.name}/manifests/latest", f"/v2/{visit.name}/manifests/{placed.digest}")
    for title, path in zip(("the API", "a tag", "a manifest by digest"), paths, strict=True):
        end = "end-1" if path == "/v2/" else "end-3"
        visit.ask(f"{title} without login", end, [401], "GET", path, ACCEPT)
        visit.ask(f"{title} with login", end, [200], "GET", path, {**ACCEPT, **BASIC})
    blob = f"/v2/{visit.name}/blobs/{visit.place_blob('secret').digest}"
    visit.ask("a blob without login", "end-2", [401], "GET", blob)
    visit.ask("a blob with login", "end-2", [200], "GET", blob, BASIC)


def redirects(visit: Visit) -> None:
    """Read from a registry whose blobs are in a storage of another name."""
    path = f"/v2/{visit.name}/blobs/{visit.place_blob('elsewhere').digest}"
    visit.ask("HEAD of a redirected blob", "end-2", [200, 307], "HEAD", path)
    visit.ask("GET of a redirected blob", "end-2", [200, 307], "GET", path)
    visit.ask("Range of a redirected blob", "end-2", [206, 307], "GET", path, {"Range": "bytes=0-9"})
