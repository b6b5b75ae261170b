"""regproxy.policy.admin_access: who may use the admin plane."""

import pytest

from regproxy.policy.admin_access import refusal

TOKEN = "sixteen-characters-or-more"


def status(token: str = "", client_ip: str = "127.0.0.1", **headers: str) -> int:
    """Return the status of a refusal, 200 for none."""
    fields = {"host": "127.0.0.1:3128"} | {name.replace("_", "-"): value for name, value in headers.items()}
    refused = refusal(fields, client_ip, token, frozenset({"proxy.example"}))
    return 200 if refused is None else refused.status


@pytest.mark.parametrize(
    ("client_ip", "expected"),
    [
        ("127.0.0.1", 200),
        ("127.8.9.10", 200),
        ("::1", 200),
        ("::ffff:127.0.0.1", 200),
        ("::ffff:192.0.2.1", 403),
        ("192.0.2.1", 403),
        ("10.0.0.1", 403),
        ("fe80::1", 403),
        ("", 403),
        ("localhost", 403),
    ],
)
def test_without_a_token_only_this_machine_comes_in(client_ip: str, expected: int) -> None:
    """Private networks are not this machine; a token opens for all of them."""
    assert status(client_ip=client_ip) == expected
    assert status(TOKEN, client_ip, authorization=f"Bearer {TOKEN}") == 200


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN, "Bearer \udce9"],
)
def test_a_wrong_token_is_401_for_this_machine_too(authorization: str) -> None:
    """With a token set, loopback alone opens nothing."""
    assert status(TOKEN, authorization=authorization) == 401


def test_the_scheme_has_no_case() -> None:
    """RFC 9110 section 11.1."""
    assert status(TOKEN, authorization=f"bearer {TOKEN}") == 200


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", 200),
        ("192.0.2.1:3128", 200),
        ("[::1]:3128", 200),
        ("localhost:3128", 200),
        ("LOCALHOST.", 200),
        ("proxy.example:3128", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("127.0.0.1.evil.example", 421),
        ("", 421),
        ("a b", 421),
    ],
)
def test_the_host_is_an_address_or_a_name_that_is_listed(host: str, expected: int) -> None:
    """A page whose name was turned to this address has another one."""
    assert status(host=host) == expected


@pytest.mark.parametrize(
    "headers",
    [
        {"x_forwarded_for": "192.0.2.1"},
        {"forwarded": "for=192.0.2.1"},
        {"via": "1.1 front"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
    ],
)
def test_what_lends_this_machines_address_is_refused(headers: dict[str, str]) -> None:
    """Reverse proxies and pages of others; with the token they are let in."""
    assert status("", "127.0.0.1", **headers) == 403
    assert status(TOKEN, "127.0.0.1", **headers, authorization=f"Bearer {TOKEN}") == 200


@pytest.mark.parametrize("headers", [{"origin": "http://127.0.0.1:3128"}, {"sec_fetch_site": "same-origin"}])
def test_the_proxys_own_pages_may(headers: dict[str, str]) -> None:
    """The dashboard is one."""
    assert status("", "127.0.0.1", **headers) == 200
