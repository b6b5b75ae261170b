"""What a request to the mirror door means: three forms, one registry, and nothing that the operator did not list."""

from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.oci.endpoint import Blob, EndpointError, Manifest, build_path, parse_endpoint
from regproxy.oci.errors import ErrorCode
from regproxy.oci.names import Registry, parse_repository_name
from regproxy.policy.interception import HostPattern
from regproxy.policy.mirror import (
    HUB,
    Mirrored,
    MirrorTarget,
    find_mirrored,
    is_api,
    is_api_root,
    read_mirror_target,
    through_the_door,
)

DIGEST = f"sha256:{'a' * 64}"
PATTERNS = tuple(map(HostPattern.parse, ("registry-1.docker.io", "quay.io", "*.lab.test", "http://plain.test")))

components = st.from_regex(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*", fullmatch=True).filter(lambda text: len(text) < 60)
names = st.lists(components, min_size=1, max_size=4).map("/".join).filter(lambda text: len(text) <= 255)
labels = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
hosts = st.lists(labels, min_size=2, max_size=4).map(".".join)
registries = st.builds(Registry, hosts, st.integers(1, 65535))
ends = st.sampled_from(["manifests/latest", f"manifests/{DIGEST}", f"blobs/{DIGEST}"])


@pytest.mark.parametrize(
    ("target", "namespace", "wanted"),
    [
        ("/v2/team/app/manifests/1?ns=quay.io", "quay.io", "/v2/team/app/manifests/1"),
        ("/v2/team/app/manifests/1?n=2&ns=quay.io&last=a%20b", "quay.io", "/v2/team/app/manifests/1?n=2&last=a%20b"),
        ("/v2/app/manifests/1?ns=reg.test%3A5000", "reg.test:5000", "/v2/app/manifests/1"),
        ("/v2/app/manifests/1?ns=quay.io&ns=quay.io", "quay.io", "/v2/app/manifests/1"),
        ("/v2/app/manifests/1?%6es=quay.io", "quay.io", "/v2/app/manifests/1"),
        ("/v2/quay.io/team/app/manifests/1", "quay.io", "/v2/team/app/manifests/1"),
        ("/v2/quay.io/app/tags/list?n=3", "quay.io", "/v2/app/tags/list?n=3"),
        ("/v2/localhost/app/manifests/1", "localhost", "/v2/app/manifests/1"),
        ("/v2/reg.test:5000/app/manifests/1", "reg.test:5000", "/v2/app/manifests/1"),
        ("/v2/reg.test%3A5000/app/manifests/1", "reg.test:5000", "/v2/app/manifests/1"),
        ("/v2/[::1]:5000/app/manifests/1", "[::1]:5000", "/v2/app/manifests/1"),
        ("/v2/library/alpine/manifests/1", "docker.io", "/v2/library/alpine/manifests/1"),
        ("/v2/library/alpine/manifests/1?ns=", "docker.io", "/v2/library/alpine/manifests/1"),
        # BuildKit, k3s with a rewrite: host and ns at once, under any of Docker Hub's names
        ("/v2/docker.io/library/alpine/manifests/1?ns=docker.io", "docker.io", "/v2/library/alpine/manifests/1"),
        (
            "/v2/docker.io/library/alpine/manifests/1?ns=registry-1.docker.io",
            "registry-1.docker.io",
            "/v2/library/alpine/manifests/1",
        ),
        ("/v2/quay.io/app/manifests/1?ns=ghcr.io", "ghcr.io", "/v2/quay.io/app/manifests/1"),
        # a repository of the default registry, whose name has a period and one component
        ("/v2/my.app/manifests/1", "docker.io", "/v2/my.app/manifests/1"),
        ("/v2/my.app/tags/list", "docker.io", "/v2/my.app/tags/list"),
    ],
)
def test_each_form_is_parted(target: str, namespace: str, wanted: str) -> None:
    """Into the registry, and what is to be asked there."""
    assert read_mirror_target(target, "docker.io") == MirrorTarget(namespace, wanted)


@given(name=names, end=ends, registry=registries)
def test_all_forms_mean_the_same(name: str, end: str, registry: Registry) -> None:
    """With `ns`, with the host in the path, with both; and as the default, unless the name begins like a host."""
    wanted = f"/v2/{name}/{end}"
    host = quote(str(registry))
    forms = [f"{wanted}?ns={host}", f"/v2/{registry}/{name}/{end}", f"/v2/{registry}/{name}/{end}?ns={host}"]

    for form in forms:
        assert read_mirror_target(form, "docker.io") == MirrorTarget(str(registry), wanted)
    if "/" not in name or "." not in name.partition("/")[0]:
        assert read_mirror_target(wanted, str(registry)) == MirrorTarget(str(registry), wanted)


@given(name=names, end=ends, registry=registries)
def test_a_link_through_the_door_leads_back(name: str, end: str, registry: Registry) -> None:
    """Whatever the client's own form is, the path alone says which registry is meant."""
    wanted = f"/v2/{name}/{end}"

    led = read_mirror_target(through_the_door(wanted, registry), "docker.io")

    assert (Registry.parse(led.namespace), led.target) == (registry, wanted)


@given(target=st.text(max_size=80), default=st.sampled_from(["", "docker.io"]))
def test_whatever_is_read_is_content_or_refused(target: str, default: str) -> None:
    """No target makes anything but an EndpointError, and what is read keeps the grammar of the registry API."""
    try:
        read = read_mirror_target(f"/v2/{target}", default)
        endpoint = parse_endpoint("GET", read.target)
    except EndpointError:
        return
    assert read.namespace
    if isinstance(endpoint, Blob | Manifest):
        assert parse_repository_name(endpoint.name) == endpoint.name
        assert parse_endpoint("GET", build_path(endpoint)) == endpoint


@pytest.mark.parametrize(
    ("target", "default", "code"),
    [
        ("/v2/app/manifests/1?ns=quay.io&ns=ghcr.io", "docker.io", ErrorCode.NAME_INVALID),
        ("/v2/app/manifests/1", "", ErrorCode.NAME_UNKNOWN),
        ("/v2/app/manifests/1?ns=", "", ErrorCode.NAME_UNKNOWN),
    ],
)
def test_a_request_without_one_registry_is_refused(target: str, default: str, code: ErrorCode) -> None:
    """Several would make a guess of it."""
    with pytest.raises(EndpointError) as caught:
        read_mirror_target(target, default)
    assert caught.value.code is code


@pytest.mark.parametrize(
    ("namespace", "expected"),
    [
        ("quay.io", Mirrored(Registry("quay.io"), plain_http=False)),
        ("QUAY.io.", Mirrored(Registry("quay.io"), plain_http=False)),
        ("quay.io:443", Mirrored(Registry("quay.io"), plain_http=False)),
        ("quay.io:5000", Mirrored(Registry("quay.io", 5000), plain_http=False)),
        ("docker.io", Mirrored(HUB, plain_http=False)),
        ("index.docker.io", Mirrored(HUB, plain_http=False)),
        ("registry-1.docker.io", Mirrored(HUB, plain_http=False)),
        ("a.lab.test", Mirrored(Registry("a.lab.test"), plain_http=False)),
        ("plain.test", Mirrored(Registry("plain.test", 80), plain_http=True)),
        ("plain.test:5000", Mirrored(Registry("plain.test", 5000), plain_http=True)),
        ("lab.test", None),
        ("auth.docker.io", None),
        ("docker.caching.proxy.internal", None),
        ("nowhere.test", None),
        ("127.0.0.1", None),
        ("a b", None),
        ("quay.io:0", None),
        ("quay.io/x", None),
        ("http://quay.io", None),
        ("user@quay.io", None),
    ],
)
def test_a_registry_is_found_among_the_operators(namespace: str, expected: Mirrored | None) -> None:
    """Docker Hub under any name is the one that the proxy door knows; hosts beside registries are none."""
    assert find_mirrored(namespace, PATTERNS) == expected


@pytest.mark.parametrize("name", ["docker.io", "index.docker.io", "registry-1.docker.io"])
def test_what_is_never_intercepted_is_not_mirrored(name: str) -> None:
    """`-host` among REGISTRIES, for Docker Hub as well."""
    exception = replace(HostPattern(HUB.host), tunnelled=True)
    assert find_mirrored(name, (*PATTERNS, exception)) is None


def test_a_port_of_its_own_is_needed_to_be_meant() -> None:
    """Of a registry at one port, no other is mirrored."""
    patterns = (HostPattern.parse("http://reg.test:5000"), HostPattern.parse("http://web.test:80"))

    assert find_mirrored("reg.test", patterns) is None
    assert find_mirrored("reg.test:5000", patterns) == Mirrored(Registry("reg.test", 5000), plain_http=True)
    assert find_mirrored("web.test", patterns) == Mirrored(Registry("web.test", 80), plain_http=True)


@pytest.mark.parametrize(
    ("target", "api", "root"),
    [
        ("/v2", True, True),
        ("/v2/", True, True),
        ("/v2/?ns=docker.io", True, True),
        ("/v2/a/manifests/b", True, False),
        ("/v2x", False, False),
        ("/v1/", False, False),
        ("/", False, False),
        ("/?/v2/", False, False),
        ("//v2/", False, False),
    ],
)
def test_the_door_is_below_v2(target: str, api: bool, root: bool) -> None:
    """Everything else is the proxy's own page."""
    assert (is_api(target), is_api_root(target)) == (api, root)
