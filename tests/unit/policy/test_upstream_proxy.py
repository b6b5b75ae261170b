"""Which proxy an upstream is reached through."""

import pytest

from regproxy.policy.upstream_proxy import DIRECT, ForwardProxy, ProxyException, ProxyPlan

SECRET = "hunter2-s3cret"
PROXY = ForwardProxy("proxy.test", 8080)
PLAIN = ForwardProxy("plain.test", 80)


def plan(no_proxy: str) -> ProxyPlan:
    return ProxyPlan(PROXY, PLAIN, tuple(map(ProxyException.parse, no_proxy.split())))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://proxy.test:8080", ForwardProxy("proxy.test", 8080)),
        ("HTTP://Proxy.test/", ForwardProxy("proxy.test", 80)),
        ("proxy.test:3128", ForwardProxy("proxy.test", 3128)),
        ("http://[fd00::1]:3128", ForwardProxy("fd00::1", 3128)),
        ("http://me:p%40ss:w@10.0.0.1:1", ForwardProxy("10.0.0.1", 1, "me", "p@ss:w")),
    ],
)
def test_a_proxy_is_read(text: str, expected: ForwardProxy) -> None:
    """With its login, if it has one."""
    assert ForwardProxy.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["https://a.test", "socks5://a.test", f"http://me:{SECRET}@", f"http://a:{SECRET}", f"http://x/{SECRET}"]
)
def test_what_is_no_proxy_is_refused_without_its_text(text: str) -> None:
    """It may hold a password."""
    with pytest.raises(ValueError, match=r".") as caught:
        ForwardProxy.parse(text)

    assert SECRET not in str(caught.value)


def test_a_login_is_not_shown() -> None:
    """Neither in a repr nor in a text."""
    proxy = ForwardProxy.parse(f"http://me:{SECRET}@a.test")

    assert SECRET not in repr(proxy) + str(proxy)


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "direct"),
    [
        ("", "quay.io", 443, False),
        ("*", "quay.io", 443, True),
        ("quay.io", "quay.io", 443, True),
        ("quay.io", "cdn.quay.io", 443, True),
        ("quay.io", "myquay.io", 443, False),
        (".quay.io", "quay.io", 443, False),
        (".quay.io", "cdn.quay.io", 443, True),
        ("*.quay.io", "cdn.quay.io", 443, True),
        ("quay.io:5000", "quay.io", 443, False),
        ("quay.io:5000", "quay.io", 5000, True),
        ("10.0.0.0/8", "10.1.2.3", 443, True),
        ("10.0.0.0/8", "11.1.2.3", 443, False),
        ("10.0.0.0/8", "ten.test", 443, False),
        ("10.1.2.3", "10.1.2.3", 443, True),
        ("fd00::/8", "fd00::1", 443, True),
        ("fd00::1", "fd00::1", 443, True),
        ("[fd00::1]:5000", "fd00::1", 443, False),
        ("", "127.0.0.1", 443, True),
        ("", "::1", 443, True),
        ("", "localhost", 443, True),
    ],
)
def test_exceptions_are_reached_directly(no_proxy: str, host: str, port: int, *, direct: bool) -> None:
    """By Go's rules, which most clients of registries follow."""
    assert plan(no_proxy).choose("https", host, port) == (None if direct else PROXY)


@pytest.mark.parametrize("text", ["a/b", "10.0.0.0/99", "a b", "a:b", "[x"])
def test_what_is_no_exception_is_refused(text: str) -> None:
    """The caller tells which entry."""
    with pytest.raises(ValueError, match=r"."):
        ProxyException.parse(text)


def test_the_scheme_chooses_the_proxy() -> None:
    """Plain http goes by HTTP_PROXY."""
    assert plan("").choose("http", "a.test", 80) == PLAIN
    assert ProxyPlan(https=PROXY).choose("http", "a.test", 80) is None
    assert DIRECT.choose("https", "a.test", 443) is None


def test_a_proxy_that_leads_back_is_left_out() -> None:
    """The other one stays, and so do the exceptions."""
    left = plan("a.test").without([PROXY])

    assert left.proxies == (PLAIN,)
    assert left.exceptions == plan("a.test").exceptions
