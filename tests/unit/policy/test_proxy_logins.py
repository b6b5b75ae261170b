"""Logins of clients: how they are written, and how they are sent."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regproxy.policy.proxy_logins import ProxyLogin, read_basic

SECRET = "hunter2-s3cret"


def basic(pair: bytes) -> str:
    return "Basic " + base64.b64encode(pair).decode()


@pytest.mark.parametrize(
    ("text", "hashed"),
    [("a:p:q$", False), ("a:$2y$05$abc", True), ("a:$2b$12$abc", True), ("a:{SHA}abc=", True), ("a:$p", False)],
)
def test_a_login_is_read(text: str, *, hashed: bool) -> None:
    """A password may hold everything; bcrypt and SHA-1 are told by their beginnings."""
    login = ProxyLogin.parse(text)

    assert f"{login.username}:{login.secret}" == text
    assert login.is_hashed is hashed
    assert login.secret not in repr(login)


@pytest.mark.parametrize(
    "text", [SECRET, f":{SECRET}", "a:", f"a:$apr1${SECRET}", f"a:$6${SECRET}", f"a:{{SSHA}}{SECRET}"]
)
def test_what_is_no_login_is_refused_without_its_text(text: str) -> None:
    """Also a hash that cannot be checked: it must not be taken for a password."""
    with pytest.raises(ValueError, match=r"form|kind") as caught:
        ProxyLogin.parse(text)

    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (basic(b"me:p:w"), ("me", "p:w")),
        (basic("me:pä".encode()).replace("Basic", "bAsIc "), ("me", "pä")),
        (None, None),
        ("", None),
        ("Bearer x", None),
        ("Basic", None),
        ("Basic ***", None),
        (basic(b"me"), None),
        (basic(b"me:\xff"), None),
    ],
)
def test_a_field_is_read(header: str | None, expected: tuple[str, str] | None) -> None:
    """RFC 7617; what is none is none."""
    assert read_basic(header) == expected


@given(st.text())
def test_no_field_raises(header: str) -> None:
    """Whatever a client sends."""
    read_basic(header)
    read_basic(f"Basic {header}")
