"""Every way in which a scripted origin misbehaves, one line or two each: what it does, what the client gets.

`tests/e2e/test_hostile_upstreams.py` plays them, docs/hostile-upstreams.md shows them.
"""

import gzip
import json
import sys
from collections.abc import Callable

from lab.hostile import (
    BLOBS,
    MANIFESTS,
    Case,
    Cut,
    Place,
    Refused,
    Relayed,
    StandIn,
    Through,
    Whole,
    document,
    everywhere,
    manifest,
    markdown,
)
from lab.image import INDEX
from lab.misbehaviour import Content, body, endless_chunks, head, other_body, pause, repeated, reset, stall, tail, text

MIB = 1024 * 1024
OCTETS = "application/octet-stream"

_JSON = (*MANIFESTS, Place.TOKEN)
_ALL = (*BLOBS, *_JSON)
_AGAIN = everywhere(Whole(retried=True), *BLOBS)
_CHUNKED = head(without="content-length", transfer_encoding="chunked")
_BOMB = gzip.compress(gzip.compress(b"\x00" * (64 * MIB)))
_POISON = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"
_CUT = (head(), body(0.3), pause(0.2))


def _deep(seed: str) -> bytes:
    return b'{"seed":"%b","annotations":' % seed.encode() + b"[" * 200_000 + b"]" * 200_000 + b"}"


def _ambiguous(**more: object) -> Callable[[str], Content]:
    return lambda seed: manifest(seed, **more)


TRANSPORT = (
    Case(
        does="cuts the connection in the body",
        answers=((*_CUT,),),
        heals=True,
        client={
            **_AGAIN,
            Place.CLIENT_TOKEN: StandIn("broke off its answer"),
            **everywhere(Refused("broke off its answer"), *_JSON),
        },
    ),
    Case(
        does="resets the connection in the body",
        answers=((*_CUT, reset()),),
        heals=True,
        client={**_AGAIN, **everywhere(Refused("broke off its answer"), *_JSON)},
    ),
    Case(
        does="stalls in the body",
        answers=((head(), body(0.3), stall()),),
        heals=True,
        client={**_AGAIN, **everywhere(Refused("did not answer in time", 504), *_JSON)},
    ),
    Case(
        does="resets the connection after the head",
        answers=((head(), pause(0.2), reset()),),
        heals=True,
        client={**_AGAIN, **everywhere(Refused("broke off its answer"), *_JSON)},
    ),
    Case(
        does="closes the connection without an answer",
        answers=((), ()),
        heals=True,
        client={**_AGAIN, **everywhere(Refused("closed the connection without an answer"), *_JSON)},
    ),
    Case(
        does="sends its head a byte at a time, without end",
        answers=((text(b"HTTP/1.1 200 OK\r\nx-slow: "), repeated(b"x", pause_s=0.1)),),
        heals=True,
        client={**_AGAIN, **everywhere(Refused("did not answer in time", 504), *_JSON)},
    ),
    Case(
        does="speaks another protocol",
        answers=((text(b"SSH-2.0-OpenSSH_9.6\r\n"),),),
        heals=True,
        client={**_AGAIN, **everywhere(Refused("is not valid HTTP"), *_JSON)},
    ),
)

FLOODS = (
    Case(
        does="sends 10,000 header fields",
        answers=((text(b"HTTP/1.1 200 OK\r\n"), repeated(b"x-a: b\r\n", 10_000), text(b"\r\n"), body()),),
        heals=True,
        is_flood=True,
        client={**_AGAIN, **everywhere(Refused("more or longer header fields"), *_JSON)},
    ),
    Case(
        does="sends header fields without end",
        answers=((text(b"HTTP/1.1 200 OK\r\n"), repeated(b"x-a: b\r\n" * 5000)),),
        heals=True,
        is_flood=True,
        client={**_AGAIN, **everywhere(Refused("more or longer header fields"), *_JSON)},
    ),
    Case(
        does="sends one header field without end",
        answers=((text(b"HTTP/1.1 200 OK\r\nx-a: "), repeated(b"b" * 65_536)),),
        heals=True,
        is_flood=True,
        client={**_AGAIN, **everywhere(Refused("more or longer header fields"), *_JSON)},
    ),
    Case(
        does="sends interim answers (103) without end",
        answers=((repeated(b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n" * 100, pause_s=0.01),),),
        heals=True,
        is_flood=True,
        client={**_AGAIN, **everywhere(Refused("did not answer in time", 504), *_JSON)},
    ),
    Case(
        does="sends a chunked body without end",
        answers=((_CHUNKED, endless_chunks()),),
        is_flood=True,
        client={
            Place.BLOB: Through("cap"),
            **everywhere(Refused("4194304 bytes"), *MANIFESTS),
            Place.TOKEN: Refused("1048576 bytes"),
            Place.CLIENT_TOKEN: StandIn("1048576 bytes"),
        },
    ),
    Case(
        does="announces and sends 30 MiB",
        answers=((head(content_length=str(30 * MIB)), repeated(b"\x00" * MIB, 30)),),
        is_flood=True,
        client={
            **everywhere(Refused("4194304 bytes"), *MANIFESTS),
            Place.TOKEN: Refused("1048576 bytes"),
            Place.CLIENT_TOKEN: StandIn("1048576 bytes"),
        },
    ),
    Case(
        does="announces a length of 1 TiB",
        answers=((head(content_length=str(1 << 40)), body()),),
        is_flood=True,
        client={
            Place.BLOB: Through("cap"),
            **everywhere(Refused("4194304 bytes"), *MANIFESTS),
            Place.TOKEN: Refused("1048576 bytes"),
            Place.CLIENT_TOKEN: StandIn("1048576 bytes"),
        },
    ),
    Case(
        does="sends a gzip bomb, encoded",
        answers=((head(content_encoding="gzip", content_length=str(len(_BOMB))), text(_BOMB)),),
        is_flood=True,
        client={**everywhere(Refused("encodes"), *_ALL), Place.CLIENT_TOKEN: StandIn("encodes")},
    ),
    Case(
        does="sends a gzip bomb as the content",
        makes=document(lambda seed: _BOMB + seed.encode()),
        answers=((head(), body()),),
        is_flood=True,
        client=everywhere(Refused("not JSON"), *_JSON),
    ),
)

LENGTHS = (
    Case(
        does="announces and sends half of it",
        answers=((head(content_length="{half}"), body(0.5)),),
        client={
            Place.BLOB: Cut("hashes to"),
            Place.SMALL_BLOB: Refused("hashes to"),
            **everywhere(Refused("hashes to"), *MANIFESTS),
            Place.TOKEN: Refused("not JSON"),
        },
    ),
    Case(
        does="sends another answer behind the one that was asked for",
        answers=((head(connection="keep-alive"), body(), text(_POISON)),),
        heals=True,
        client=everywhere(Whole(), *_ALL),
    ),
    Case(
        does="announces more than it sends",
        answers=((head(content_length="{more}"), body()),),
        heals=True,
        client={
            Place.BLOB: Cut("bytes"),
            Place.SMALL_BLOB: Whole(retried=True),
            **everywhere(Refused("broke off its answer"), *_JSON),
        },
    ),
    Case(
        does="announces two lengths",
        answers=((head(content_length="{size}\n{half}"), body()),),
        heals=True,
        client={**_AGAIN, **everywhere(Refused("is not valid HTTP"), *_JSON)},
    ),
    Case(
        does="announces a length and chunks",
        answers=((head(transfer_encoding="chunked"), body()),),
        heals=True,
        client={**_AGAIN, **everywhere(Refused("is not valid HTTP"), *_JSON)},
    ),
    Case(
        does="announces a length below zero",
        answers=((head(content_length="-1"), body()),),
        heals=True,
        client={**_AGAIN, **everywhere(Refused("is not valid HTTP"), *_JSON)},
    ),
    Case(
        does="announces no length and cuts the body",
        answers=((head(without="content-length"), body(0.3)),),
        heals=True,
        client={**everywhere(Refused("hashes to"), *BLOBS, *MANIFESTS), Place.TOKEN: Refused("not JSON")},
    ),
)

WRONG_CONTENT = (
    Case(
        does="sends other bytes of the right length",
        answers=((head(), other_body()),),
        client={
            Place.BLOB: Cut("hashes to"),
            Place.SMALL_BLOB: Refused("hashes to"),
            **everywhere(Refused("hashes to"), *MANIFESTS),
            Place.TOKEN: Refused("not JSON"),
        },
    ),
    Case(
        does="names another digest",
        answers=((head(docker_content_digest="sha256:" + "0" * 64), body()),),
        client={**everywhere(Whole(), *BLOBS, Place.DIGEST), Place.TAG: Refused("hashes to")},
    ),
    Case(
        does="sends a login page",
        makes=document(lambda seed: f"<html>Log in to {seed}</html>".encode(), "text/html"),
        answers=((head(without="docker-content-digest"), body()),),
        client=everywhere(Refused("not JSON"), *_JSON),
    ),
    Case(
        does="sends a login page in a blob's place",
        answers=((head(content_type="text/html", content_length="5"), text(b"login")),),
        client=everywhere(Refused("hashes to"), *BLOBS),
    ),
    Case(
        does="sends no Content-Type",
        answers=((head(without="content-type"), body()),),
        client=everywhere(Whole(), *_ALL),
    ),
    Case(
        does="sends a Content-Type of no manifest",
        answers=((head(content_type="text/html"), body()),),
        client=everywhere(Whole(), *_ALL),
    ),
    Case(
        does="sends the Content-Type of another manifest",
        answers=((head(content_type=INDEX), body()),),
        client=everywhere(Refused("says of itself"), *MANIFESTS),
    ),
    Case(
        does="sends both `manifests` and `layers`",
        makes=_ambiguous(manifests=[]),
        answers=((head(), body()),),
        client=everywhere(Refused("both an image and an index"), *MANIFESTS),
    ),
    Case(
        does="hides `manifests` in other letters",
        makes=_ambiguous(Manifests=[]),
        answers=((head(), body()),),
        client=everywhere(Refused("both an image and an index"), *MANIFESTS),
    ),
    Case(
        does="says `mediaType` twice",
        makes=document(lambda seed: manifest(seed).body[:-1] + b', "mediaType": "' + INDEX.encode() + b'"}'),
        answers=((head(), body()),),
        client=everywhere(Refused("twice"), *MANIFESTS),
    ),
    Case(
        does="sends JSON that is nested 200,000 deep",
        makes=document(_deep),
        answers=((head(), body()),),
        is_flood=True,
        client=everywhere(Refused("not JSON"), *_JSON),
    ),
    Case(
        does="sends a manifest of two million elements",
        makes=document(
            lambda seed: json.dumps({"seed": seed}).encode()[:-1] + b',"layers":[' + b"0," * 2_000_000 + b"0]}"
        ),
        answers=((head(), body()),),
        is_flood=True,
        client=everywhere(Refused("too many elements"), *MANIFESTS),
    ),
)

RANGES = (
    Case(
        does="answers 206 to a request without a range",
        answers=((head(206, content_range="bytes 0-{size}/{size}"), body()),),
        client=everywhere(Refused("answered 206"), *BLOBS, *MANIFESTS, Place.TOKEN),
    ),
    Case(
        does="cuts, then ignores the range",
        answers=((*_CUT,), (head(), body())),
        client={Place.BLOB: Whole(retried=True)},
    ),
    Case(
        does="cuts, then sends a part but not which",
        answers=((*_CUT,), (head(206), body())),
        heals=True,
        client={Place.BLOB: Whole(retried=True)},
    ),
    Case(
        does="cuts, then sends another part",
        answers=((*_CUT,), (head(206, content_range="bytes 0-99/{size}", content_length="100"), body(0.001))),
        heals=True,
        client={Place.BLOB: Whole(retried=True)},
    ),
    Case(
        does="cuts, then sends a part of another size",
        answers=(
            (*_CUT,),
            (head(206, content_range="bytes 30000-100009/100010", content_length="70010"), tail(30_000)),
        ),
        client={Place.BLOB: Cut("bytes")},
    ),
    Case(
        does="cuts, then sends other bytes as the part",
        answers=((*_CUT,), (head(206, content_range="bytes 30000-99999/100000", content_length="70000"), body(0.7))),
        client={Place.BLOB: Cut("hashes to")},
    ),
    Case(
        does="cuts, then answers 416",
        answers=((*_CUT,), (head(416, content_range="bytes */5", content_length="0"),)),
        client={Place.BLOB: Cut("answered 416")},
    ),
)

REDIRECTS = tuple(
    Case(
        does=f"redirects {where}",
        answers=((head(307, location=location, content_length="0"),),),
        client={**everywhere(Refused(words), *BLOBS, *MANIFESTS), Place.TOKEN: Refused("redirects token requests")},
    )
    for where, location, words in (
        ("without end", "https://origin.lab.test/loop?signature=hunter2-Zq7", "more than 10 redirects"),
        ("to itself", "?again=hunter2-Zq7", "more than 10 redirects"),
        ("to a metadata address", "https://169.254.169.254/latest/meta-data?x=hunter2-Zq7", "a metadata address"),
        ("to a metadata address inside IPv6", "https://[::ffff:169.254.169.254]/x?x=hunter2-Zq7", "a metadata address"),
        ("to a private address", "https://10.1.2.3/x?x=hunter2-Zq7", "a private address"),
        ("to a loopback address", "https://127.0.0.1:8443/x?x=hunter2-Zq7", "a loopback address"),
        ("to localhost", "https://localhost:8443/x?x=hunter2-Zq7", "a loopback address"),
        ("to loopback in IPv6", "https://[::1]:8443/x", "a loopback address"),
        ("to loopback inside IPv6", "https://[::ffff:127.0.0.1]:8443/x", "a loopback address"),
        ("to loopback in short", "https://127.1:8443/x", "not valid"),
        ("to loopback as one number", "https://2130706433:8443/x", "not valid"),
        ("to plain http", "http://edge.lab.test/x?x=hunter2-Zq7", "plain http"),
        ("to a URL with a user name", "https://user:hunter2-Zq7@edge.lab.test/x", "user name"),
        ("to another scheme", "ftp://edge.lab.test/x", "neither http nor https"),
        ("to a URL with a backslash", "https://edge.lab.test\\@127.0.0.1/x", "backslash"),
        ("to a name that leads to loopback", "https://rebind.example:8443/forbidden", "a loopback address"),
        ("to a name that leads to loopback and elsewhere", "https://both.example:8443/forbidden", "a loopback address"),
    )
)

STATUSES = (
    Case(
        does="answers 204 to everything",
        answers=((head(204, without="content-length content-type docker-content-digest"),),),
        client=everywhere(Refused("answered 204"), *_ALL),
    ),
    Case(does="answers 304 to everything", answers=((head(304),),), client=everywhere(Refused("answered 304"), *_ALL)),
    Case(
        does="redirects without a Location",
        answers=((head(307, content_length="0"),),),
        client={
            **everywhere(Refused("answered 307"), *BLOBS, *MANIFESTS),
            Place.TOKEN: Refused("redirects token requests"),
        },
    ),
    Case(
        does="refuses every token (401)",
        answers=(
            (head(401, www_authenticate='Bearer realm="https://edge.lab.test/token",service="x"', content_length="0"),),
        ),
        client=everywhere(Relayed(401), *_ALL, Place.CLIENT_TOKEN),
        recovers=False,
    ),
    Case(
        does="answers 500 to everything",
        answers=((head(500, content_length="0"),),),
        heals=True,
        client={**everywhere(Relayed(500), *BLOBS, *MANIFESTS), Place.TOKEN: Refused("answered 500")},
    ),
    Case(
        does="answers 429 with Retry-After",
        answers=((head(429, retry_after="1", content_length="0"),),),
        heals=True,
        client={
            **everywhere(Relayed(429), *BLOBS, *MANIFESTS),
            Place.TOKEN: Refused("answered 429", 429),
            Place.CLIENT_TOKEN: StandIn("answered 429"),
        },
    ),
    Case(
        does="answers 429 without Retry-After",
        answers=((head(429, content_length="0"),),),
        heals=True,
        client={
            **everywhere(Relayed(429), *BLOBS, *MANIFESTS),
            Place.TOKEN: Refused("answered 429", 429),
            Place.CLIENT_TOKEN: StandIn("answered 429"),
        },
    ),
)

REALMS = tuple(
    Case(
        does=f"names a token server {where}",
        answers=((head(401, www_authenticate=f'Bearer realm="{realm}",service="x"', content_length="0"),),),
        client=everywhere(Relayed(401), Place.BLOB, *MANIFESTS),
    )
    for where, realm in (
        ("in plain http", "http://edge.lab.test/token"),
        ("at a metadata address", "https://169.254.169.254/token"),
        ("at a loopback address", "https://127.0.0.1:8443/token"),
        ("with a user name", "https://user:hunter2-Zq7@edge.lab.test/token"),
        ("nowhere", ""),
        ("at a name that leads to loopback", "https://rebind.example:8443/token"),
    )
)

HOSTILE_CASES: tuple[Case, ...] = (
    *TRANSPORT,
    *FLOODS,
    *LENGTHS,
    *WRONG_CONTENT,
    *RANGES,
    *REDIRECTS,
    *REALMS,
    *STATUSES,
)

if __name__ == "__main__":
    sys.stdout.write("\n".join(markdown(HOSTILE_CASES)) + "\n")
