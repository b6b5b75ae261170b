"""What is fuzzed: each target takes any bytes, and fails by an exception that is no refusal.

A refusal is the error that the parser promises. What is accepted must hold what the code behind it counts on: that is
the assertion.
"""

import re
from collections.abc import Callable, Mapping
from contextlib import suppress

import h11
from mitmproxy.net.http import http1
from mitmproxy.net.http.validate import validate_headers

from regproxy.engine.request_head import END_OF_HEAD, read_plain_connect, read_plain_head
from regproxy.engine.strict_head import find_fault
from regproxy.oci.challenge import parse_challenges
from regproxy.oci.digest import Digest
from regproxy.oci.endpoint import Blob, EndpointError, Manifest, Other, build_path, parse_endpoint
from regproxy.oci.media_types import accepted_manifest_types
from regproxy.oci.names import parse_authority, parse_repository_name, parse_tag
from regproxy.oci.ranges import (
    ByteRange,
    Unsatisfiable,
    WholeBody,
    content_range,
    if_range_matches,
    parse_content_range,
    parse_range,
)
from regproxy.origin.token_answers import parse_token_answer
from regproxy.policy.credentials import is_pull, repositories_of_scope
from regproxy.policy.docker_config import parse_docker_config
from regproxy.policy.identities import login_of_form, login_of_header, token_of_header
from regproxy.policy.image_rules import ImageRule, parse_network
from regproxy.policy.interception import HostPattern
from regproxy.policy.mappings import UpstreamMapping
from regproxy.policy.masking import masked_text
from regproxy.policy.mirror import find_mirrored, read_mirror_target
from regproxy.policy.proxy_logins import read_basic
from regproxy.policy.quota import parse_quota, retry_after_s
from regproxy.policy.realms import accept_realm, is_anonymous_bearer, is_opaque_bearer
from regproxy.policy.redirects import RedirectRefused, Url, next_hop
from regproxy.policy.upstream_proxy import ForwardProxy
from regproxy.settings import grammar
from regproxy.store.nginx_cache import parse_answer

_REGISTRY = Url("https", "registry.example", 443, "/v2/")
_PATTERNS = (HostPattern.parse("quay.io"), HostPattern.parse("*.lab.test"), HostPattern.parse("http://plain.test:5000"))


def request_head(data: bytes) -> None:
    """Read a head three times: what the gate lets pass is one request to all, and what is plain passes."""
    head = data + END_OF_HEAD
    end = head.index(END_OF_HEAD)
    head = head[: end + len(END_OF_HEAD)]
    fault = find_fault(head)
    plain = read_plain_head(head[:end])
    if plain is not None or read_plain_connect(head[:end]) is not None:
        assert fault is None
    if fault is not None:
        return
    request = http1.read_request_head(head[:end].split(b"\r\n"))
    validate_headers(request)
    http1.expected_http_body_size(request)
    if request.data.method == b"CONNECT" and "host" not in request.headers:
        return  # a deviation: old clients send none with a CONNECT
    reader = h11.Connection(h11.SERVER)
    reader.receive_data(head)
    event = reader.next_event()
    assert isinstance(event, h11.Request)
    assert event.method == request.data.method
    # h11 writes `chunked` in small letters.
    assert sorted((name, value.lower()) for name, value in event.headers) == sorted(
        (name.lower(), value.lower()) for name, value in request.headers.fields
    )
    if plain is not None:
        assert (plain.method, plain.target) == (request.method, request.path)


def classifier(data: bytes) -> None:
    """Classify a request: content by the grammar, or no path that a server takes for content."""
    method, _, target = data.decode("latin-1").partition(" ")
    try:
        endpoint = parse_endpoint(method, target)
    except EndpointError:
        return
    if isinstance(endpoint, Blob | Manifest):
        assert parse_endpoint("GET", build_path(endpoint)) == endpoint
        assert ".." not in build_path(endpoint).split("/")
    if isinstance(endpoint, Other) and target.startswith("/"):
        assert not re.match(r"[/\\]+v2[/\\]+.+/(manifests|blobs)/[^/]+/?$", endpoint.path)


def mirror_target(data: bytes) -> None:
    """Part a target of the mirror door: one registry and its own target, or a refusal."""
    target = "/v2/" + data.decode("latin-1")
    with suppress(EndpointError):
        asked = read_mirror_target(target, "docker.io")
        find_mirrored(asked.namespace, _PATTERNS)
        assert asked.target.startswith("/v2/")
        parse_endpoint("GET", asked.target)


def names(data: bytes) -> None:
    """Read names: what is accepted is its own normal form, and safe as a part of a file name."""
    text = data.decode("utf-8", "surrogateescape")
    for parse in (parse_repository_name, parse_tag):
        with suppress(ValueError):
            accepted = parse(text)
            assert accepted == text
            assert re.fullmatch(r"[A-Za-z0-9._/-]+", accepted)
            assert ".." not in accepted.split("/")
    with suppress(ValueError):
        digest = Digest.parse(text)
        assert str(digest) == text
        assert re.fullmatch(r"[a-f0-9]+", digest.hex)
    with suppress(ValueError):
        host, port = parse_authority(text)
        written = f"[{host}]" if ":" in host else host
        assert parse_authority(written if port is None else f"{written}:{port}") == (host, port)


def ranges(data: bytes) -> None:
    """Resolve a range: it is within the body, and its Content-Range is read back as it is."""
    size_bytes, text = len(data) * 37 % 5000, data.decode("latin-1")
    if_range_matches(text, '"a"')
    match parse_range(text, size_bytes):
        case ByteRange(start, end) as part:
            assert 0 <= start <= end < size_bytes
            read = parse_content_range(content_range(part, size_bytes))
            assert (read.start, read.end_inclusive, read.size) == (start, end, size_bytes)
        case WholeBody() | Unsatisfiable():
            pass
    with suppress(ValueError):
        told = parse_content_range(text)
        assert 0 <= told.start <= told.end_inclusive
        assert told.size is None or told.end_inclusive < told.size


def fields(data: bytes) -> None:
    """Read fields of clients and registries: nothing raises but what is promised."""
    text = data.decode("utf-8", "surrogateescape")
    accepted_manifest_types((text,))
    read_basic(text)
    login_of_header(text)
    token_of_header(text)
    is_anonymous_bearer(text)
    is_opaque_bearer(text)
    repositories_of_scope(text)
    is_pull(text)
    masked_text(text)
    with suppress(ValueError):
        login_of_form(data)
    limits = dict.fromkeys(("ratelimit-limit", "ratelimit-remaining", "RateLimit-Limit", "Retry-After"), text)
    parse_quota(limits, 1e9)
    retry_after_s(limits, 1e9)


def upstream_answers(data: bytes) -> None:
    """Challenges, redirects, token answers, stored answers of the predecessor."""
    text = data.decode("utf-8", "surrogateescape")
    for challenge in parse_challenges((text,)):
        with suppress(ValueError):
            accept_realm(_REGISTRY, challenge)
    with suppress(RedirectRefused):
        hop = next_hop(_REGISTRY, text, 0, registry_insecure=False)
        assert hop.scheme == "https"
        assert not re.search(r"[\s\\]", hop.host)
    with suppress(ValueError):
        parse_token_answer(data, 1e9)
    with suppress(ValueError):
        parse_answer(data)


def settings(data: bytes) -> None:
    """Read what the operator writes: an error that says what is wrong, or a value."""
    text = data.decode("utf-8", "surrogateescape")
    parsers: tuple[Callable[[str], object], ...] = (
        grammar.parse_duration_s,
        grammar.parse_size_bytes,
        grammar.parse_port,
        grammar.parse_count,
        grammar.parse_number,
        grammar.split_words,
        grammar.strip_quotes,
        parse_docker_config,
        parse_network,
        HostPattern.parse,
        ImageRule.parse,
        UpstreamMapping.parse,
        ForwardProxy.parse,
    )
    for parse in parsers:
        with suppress(ValueError):
            parse(text)


TARGETS: Mapping[str, Callable[[bytes], None]] = {
    target.__name__: target
    for target in (request_head, classifier, mirror_target, names, ranges, fields, upstream_answers, settings)
}
