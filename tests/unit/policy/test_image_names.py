"""Who sees names: the operator's machine or the token, and nobody who borrows either."""

import pytest

from regproxy.policy.image_names import FORWARDED_FIELDS, may_see_names, shows_token

HOST = {"host": "127.0.0.1:3128"}
TOKEN = "a long token"


@pytest.mark.parametrize("client", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["127.0.0.1:3128", "localhost:3128", "LOCALHOST", "[::1]:3128"])
def test_this_machine_sees_them(client: str, host: str) -> None:
    """By any of its loopback addresses, with or without a token that others need."""
    assert may_see_names({"host": host}, client)
    assert may_see_names({"host": host}, client, TOKEN)


@pytest.mark.parametrize("client", ["192.0.2.7", "10.0.0.1", "::ffff:10.0.0.1", "fe80::1%eth0", "", "localhost"])
def test_another_machine_does_not(client: str) -> None:
    """Wherever it is."""
    assert not may_see_names(HOST, client)


@pytest.mark.parametrize("host", ["", "evil.example", "127.0.0.1.evil.example", "192.0.2.1:3128", "a b", "localhost."])
def test_a_name_that_leads_here_is_not_this_machine(host: str) -> None:
    """DNS rebinding: the page's own name is in the Host field. One final dot is another spelling, not another name."""
    assert may_see_names({"host": host}, "127.0.0.1") is (host == "localhost.")


@pytest.mark.parametrize("field", FORWARDED_FIELDS)
def test_a_reverse_proxy_lends_its_address_to_nobody(field: str) -> None:
    """Its clients are anywhere."""
    assert not may_see_names({**HOST, field: "x"}, "127.0.0.1")


@pytest.mark.parametrize(
    ("fields", "sees"),
    [
        ({"sec-fetch-site": "same-origin", "origin": "http://127.0.0.1:3128"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"sec-fetch-site": "same-site"}, False),
        ({"origin": "https://evil.example"}, False),
        ({"origin": "http://127.0.0.1:9999"}, False),
    ],
)
def test_only_our_own_page_asks_for_the_operator(fields: dict[str, str], sees: bool) -> None:
    """Another site's page runs in the same browser."""
    assert may_see_names({**HOST, **fields}, "127.0.0.1") is sees


@pytest.mark.parametrize(
    ("authorization", "shows"),
    [
        (f"Bearer {TOKEN}", True),
        (f"bearer  {TOKEN} ", True),
        (TOKEN, False),
        (f"Basic {TOKEN}", False),
        (f"Bearer {TOKEN}x", False),
        ("Bearer", False),
        ("Bearer \udcff", False),
        ("", False),
    ],
)
def test_the_token_opens_from_anywhere(authorization: str, shows: bool) -> None:
    """As a bearer token and not otherwise."""
    assert shows_token(authorization, TOKEN) is shows
    assert may_see_names({"host": "proxy.lan", "authorization": authorization}, "192.0.2.7", TOKEN) is shows


@pytest.mark.parametrize("authorization", ["Bearer ", "Bearer", ""])
def test_no_token_is_no_empty_token(authorization: str) -> None:
    """Where none is set, none can be shown."""
    assert not may_see_names({"host": "proxy.lan", "authorization": authorization}, "192.0.2.7", "")
