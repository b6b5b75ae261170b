"""Whose account a request is on: the same one for the same login, and no secret in any text."""

import base64
import json

from hypothesis import given
from hypothesis import strategies as st

from regproxy.origin.callers import ANONYMOUS, Callers
from regproxy.policy.credentials import Credential, basic_header

SECRET = "hunter2-Zq7"
ALICE = Credential("registry.test", None, "alice", SECRET)


def token(**claims: object) -> str:
    """Return a JSON web token with a signature that nobody checks here."""
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims)]
    return f"Bearer {'.'.join(parts)}.c2ln"


def test_the_operators_logins_are_accounts() -> None:
    """The password is no part of it: a new one is the same account."""
    callers = Callers()
    assert callers.of_operator(ALICE) == callers.of_operator(Credential("registry.test", None, "alice", "new"))
    assert callers.of_operator(ALICE) != callers.of_operator(Credential("registry.test", None, "bob", SECRET))
    assert callers.of_operator(None) == ANONYMOUS


def test_a_client_is_not_the_operator_of_the_same_name() -> None:
    """What one may do is not told to the other."""
    callers = Callers()
    assert callers.of_client(basic_header(ALICE)) != callers.of_operator(ALICE)
    assert callers.of_client(basic_header(ALICE)) == callers.of_client(basic_header(ALICE))


def test_a_token_is_not_believed() -> None:
    """Who shows another one is another client, whatever it says: nobody here can check its signature."""
    callers = Callers()
    first, second = token(sub="alice", jti="1"), token(sub="alice", jti="2")
    assert callers.of_client(first) == callers.of_client(first)
    assert callers.of_client(first) != callers.of_client(second)


def test_a_token_for_nobody_is_anonymous() -> None:
    """As every `docker pull` without a login brings one from Docker Hub."""
    callers, nobody = Callers(), token(sub="", access=[{"actions": ["pull"]}])
    assert callers.of_client(nobody) == callers.of_client(None) == ANONYMOUS
    assert callers.fingerprint(nobody) == callers.fingerprint(None) == ""


def test_no_text_of_it_holds_the_secret() -> None:
    """Neither in clear nor in base64, and another process has other hashes."""
    authorization = basic_header(ALICE)
    texts = [repr(Callers().of_client(authorization)), repr(Callers().of_operator(ALICE))]
    texts.append(Callers().fingerprint(authorization))
    for text in texts:
        assert SECRET not in text
        assert authorization.removeprefix("Basic ") not in text
    assert Callers().fingerprint(authorization) != Callers().fingerprint(authorization)


@given(st.text(max_size=60) | st.text(max_size=60).map(lambda text: f"Bearer {text}.{text}.{text}"))
def test_no_authorization_makes_it_fail(authorization: str) -> None:
    """Clients send what they like."""
    callers = Callers()
    assert callers.of_client(authorization) == callers.of_client(authorization)
