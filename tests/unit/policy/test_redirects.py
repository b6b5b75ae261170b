"""Redirects: where they may lead, and what goes along."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.policy.redirects import MAX_HOPS, RedirectRefused, Url, headers_for_hop, next_hop, same_origin

CURRENT = Url.parse("https://reg.example.com:5000/v2/a/blobs/x?ns=1")


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("https://cdn.example.com/x?sig=a%2Fb&e=1", "https://cdn.example.com/x?sig=a%2Fb&e=1"),
        ("HTTPS://CDN.example.com:443/X", "https://cdn.example.com/X"),
        ("https://cdn.example.com", "https://cdn.example.com/"),
        ("https://cdn.example.com?x=1", "https://cdn.example.com/?x=1"),
        ("https://cdn.example.com/a/../b", "https://cdn.example.com/a/../b"),
        ("https://cdn.example.com/x?", "https://cdn.example.com/x?"),
        ("https://cdn.example.com/x#part", "https://cdn.example.com/x"),
        ("https://[2606:4700::1]:8443/x", "https://[2606:4700::1]:8443/x"),
        ("//cdn.example.com/x", "https://cdn.example.com/x"),
        ("/artifacts-downloads/x", "https://reg.example.com:5000/artifacts-downloads/x"),
        ("y", "https://reg.example.com:5000/v2/a/blobs/y"),
        ("../y", "https://reg.example.com:5000/v2/a/y"),
        ("?token=1", "https://reg.example.com:5000/v2/a/blobs/x?token=1"),
        ("https://cdn.example.com/a b?n=\u00fc", "https://cdn.example.com/a%20b?n=%C3%BC"),
        ("https://cdn.example.com/\udcfc", "https://cdn.example.com/%FC"),
    ],
    ids=ascii,
)
def test_a_location_leads_on(location: str, expected: str) -> None:
    """Absolute locations keep their text, relative ones keep the current host and port."""
    assert str(next_hop(CURRENT, location, 0, registry_insecure=False)) == expected


@pytest.mark.parametrize(
    "location",
    [
        "",
        "http://reg.example.com:5000/x",
        "ftp://cdn.example.com/x",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "data:text/plain,x",
        "https://user@cdn.example.com/x",
        "https://user:pass@cdn.example.com/x",
        "https://reg.example.com@evil.com/",
        "https://evil.com\\@reg.example.com/",
        "\\\\evil.com/x",
        "https:///x",
        "https:/x",
        "https:x",
        "https://cdn.example.com:0/x",
        "https://cdn.example.com:99999/x",
        "https://cdn.example.com:x/",
        "https://[::1/x",
        "https://[fe80::1%25eth0]/x",
        "https://c\u00e4dn.example.com/x",
        "https://cdn.example.com/x\r\nAuthorization: y",
        "https://cdn.exa\tmple.com/x",
        "https://cdn.example.com/\ud800",
    ],
    ids=ascii,
)
def test_a_dangerous_location_is_refused(location: str) -> None:
    """Downgrades, other schemes, user names, smuggled characters and malformed hosts are not followed."""
    with pytest.raises(RedirectRefused):
        next_hop(CURRENT, location, 0, registry_insecure=False)


def test_an_insecure_registry_may_leave_tls() -> None:
    """Only where the registry itself is spoken to in plain http may a redirect go from https to http."""
    assert next_hop(CURRENT, "http://cdn.lan/x", 0, registry_insecure=True).scheme == "http"


def test_a_redirect_may_enter_tls() -> None:
    """A step from http to https is always allowed."""
    current = Url.parse("http://reg.lan/x")

    assert next_hop(current, "https://cdn.lan/x", 0, registry_insecure=False).scheme == "https"


def test_ten_hops_are_followed_and_no_more() -> None:
    """The tenth redirect is followed, the eleventh is refused."""
    assert next_hop(CURRENT, "/x", MAX_HOPS - 1, registry_insecure=False)
    with pytest.raises(RedirectRefused, match="more than 10 redirects"):
        next_hop(CURRENT, "/x", MAX_HOPS, registry_insecure=False)


def test_signatures_and_passwords_stay_out_of_messages() -> None:
    """Neither a refusal nor a repr shows the query or the user part of a URL."""
    current = Url.parse("https://cdn.example.com/x?X-Amz-Signature=s3cret")
    for location in ("http://a/y?sig=s3cret", "ftp://a/y?sig=s3cret", "https://u:s3cret@a/", "https://a:b/?s3cret"):
        with pytest.raises(RedirectRefused) as refusal:
            next_hop(current, location, 0, registry_insecure=False)

        assert "s3cret" not in str(refusal.value)
    assert repr(current) == "Url(https://cdn.example.com/x?...)"


@pytest.mark.parametrize(
    ("other", "same"),
    [
        ("https://reg.example.com:5000/other?x", True),
        ("https://REG.example.com:5000/", True),
        ("http://reg.example.com:5000/", False),
        ("https://reg.example.com/", False),
        ("https://reg.example.com:5001/", False),
        ("https://cdn.reg.example.com:5000/", False),
    ],
)
def test_an_origin_is_scheme_host_and_port(other: str, *, same: bool) -> None:
    """Another scheme, host or port is another origin; path and case are not."""
    assert same_origin(CURRENT, Url.parse(other)) is same


def test_a_default_port_is_the_same_origin() -> None:
    """Writing the scheme's own port does not make another origin."""
    assert same_origin(Url.parse("https://a/"), Url.parse("https://a:443/"))


REQUEST = [
    ("Host", "reg.example.com:5000"),
    ("AUTHORIZATION", "Bearer s3cret"),
    ("Cookie", "session=s3cret"),
    ("Proxy-Authorization", "Basic s3cret"),
    ("X-Registry-Auth", "s3cret"),
    ("range", "bytes=0-"),
    ("If-Range", '"x"'),
    ("Accept", "a/b"),
    ("Accept", "c/d"),
    ("User-Agent", "docker/27"),
    ("Accept-Encoding", "zstd, gzip"),
    ("Connection", "close"),
]
FOR_STORAGE = [
    ("range", "bytes=0-"),
    ("If-Range", '"x"'),
    ("Accept", "a/b"),
    ("Accept", "c/d"),
    ("User-Agent", "docker/27"),
    ("Accept-Encoding", "identity"),
]


def test_authorization_is_not_sent_to_another_origin() -> None:
    """Another origin gets what selects the content and nothing that identifies the client."""
    assert headers_for_hop(REQUEST, same_origin=False) == FOR_STORAGE


def test_authorization_stays_on_the_same_origin() -> None:
    """The same origin keeps the request's fields, without those of the connection and the client's cookies."""
    kept = headers_for_hop(REQUEST, same_origin=True)

    assert kept == [("AUTHORIZATION", "Bearer s3cret"), ("X-Registry-Auth", "s3cret"), *FOR_STORAGE]


@given(st.lists(st.tuples(st.sampled_from([field for field, _ in REQUEST]), st.text())))
def test_fields_lost_on_the_way_do_not_come_back(fields: list[tuple[str, str]]) -> None:
    """After one hop to another origin, later hops have no more than that one had."""
    once = headers_for_hop(fields, same_origin=False)

    assert headers_for_hop(once, same_origin=True) == once
    assert not {field.lower() for field, _ in once} & {"authorization", "cookie", "proxy-authorization"}


@given(st.text(alphabet="htps:/@\\.[]a1?#% \n\u00fc") | st.text(), st.integers(0, 12))
def test_no_location_raises_anything_but_a_refusal(location: str, hops: int) -> None:
    """Whatever the location, it is refused or leads to a URL that reads back as itself."""
    try:
        url = next_hop(CURRENT, location, hops, registry_insecure=True)
    except RedirectRefused:
        return
    assert Url.parse(str(url)) == url
    assert str(url).isascii()
    assert str(url).isprintable()
