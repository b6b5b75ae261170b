"""Who a client is: the same login is the same client in every form, and nobody else is."""

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regproxy.policy.identities import (
    NOBODY,
    Identity,
    IdentityKey,
    Login,
    login_of_form,
    login_of_header,
    token_of_header,
)

KEY = IdentityKey(b"k" * 32)


def basic(pair: bytes) -> str:
    return "Basic " + base64.b64encode(pair).decode()


def test_the_same_login_is_the_same_client_in_every_form() -> None:
    """A header, however it is written, and a form."""
    header = login_of_header(basic(b"alice:a:b&c=\xc3\xa4"))
    same = login_of_header("basic  " + basic(b"alice:a:b&c=\xc3\xa4").partition(" ")[2])
    form = login_of_form(b"grant_type=password&username=alice&password=a%3Ab%26c%3D%C3%A4&service=s")

    assert header is not None
    assert header == same == form
    assert KEY.of_login(header) == KEY.of_login(Login(b"alice:a:b&c=\xc3\xa4"))


@pytest.mark.parametrize(
    "other",
    [
        Login(b"alice:Secret"),
        Login(b"alice:"),
        Login(b"bob:secret"),
        Login(b"alice:secret", is_guessable=False),
    ],
)
def test_another_login_is_another_client(other: Login) -> None:
    """A wrong password is not the right one's owner."""
    assert KEY.of_login(other) != KEY.of_login(Login(b"alice:secret"))


def test_another_key_knows_nobody() -> None:
    """What one proxy stored says nothing to another one."""
    other = IdentityKey(b"o" * 32)
    assert other.of_login(Login(b"alice:secret")) != KEY.of_login(Login(b"alice:secret"))
    assert other.of_token("t") != KEY.of_token("t")


def test_a_refresh_token_is_a_login_of_its_own() -> None:
    """Docker keeps one in the place of a password."""
    login = login_of_form(b"grant_type=refresh_token&refresh_token=r%2B1")
    assert login == Login(b"r+1", is_guessable=False)
    assert login is not None
    assert KEY.of_login(login) == KEY.of_token("r+1")


@pytest.mark.parametrize("body", [b"", b"grant_type=authorization_code&code=c", b"username=alice&password=p", b"\xff"])
def test_a_form_without_a_login(body: bytes) -> None:
    """Says nothing about who sent it."""
    assert login_of_form(body) is None


@pytest.mark.parametrize("header", ["Bearer x", "Basicx", "", "Negotiate abc"])
def test_other_schemes_are_no_login(header: str) -> None:
    """Only Basic is a password."""
    assert login_of_header(header) is None


def test_a_misspelt_password_is_somebodys() -> None:
    """It must not make its sender nobody."""
    assert login_of_header("Basic %%%") == Login(b"%%%")


def test_tokens() -> None:
    """By the scheme, in any case."""
    assert token_of_header("bearer  abc ") == "abc"
    assert token_of_header("Basic abc") is None


@given(st.text(max_size=60))
@settings(max_examples=100)
def test_any_header_can_be_read(header: str) -> None:
    """Nothing that a client sends makes an error, and nobody's token has the empty key."""
    login_of_header(header)
    login_of_form(header.encode("utf-8", "surrogatepass"))
    token = token_of_header(header)
    if token is not None:
        assert KEY.of_token(token) != NOBODY


def test_text_forms_show_no_secret() -> None:
    """An identity is written into logs and files."""
    assert "hunter2" not in f"{Login(b'alice:hunter2')!r}"
    assert "hunter2" not in f"{KEY.of_login(Login(b'alice:hunter2'))!r}"
    assert Identity().is_nobody
