"""Tokens that the registry no longer takes: no client is served by one, and none is stuck with one."""

import time
from collections.abc import Iterator

import pytest

from lab.clients.client import Login
from lab.clients.fixtures import CLIENTS, StartClient, StartShared, reference
from lab.fixtures import MakeImage
from lab.lab import Lab
from lab.proxy import Proxy
from lab.registry import PASSWORD, USERNAME

pytestmark = [pytest.mark.e2e, pytest.mark.clients]

LEEWAY_S = 60
"""How long a registry of the lab takes a token after its end."""
MOST_TOKENS = 20
"""Of one pull that fails; clients try again by themselves."""


@pytest.fixture
def expired(lab: Lab) -> Iterator[None]:
    """Let the token server give out tokens that have ended, as one whose clock is wrong."""
    lab.auth.set_lifetime(-2 * LEEWAY_S)
    yield
    lab.auth.set_lifetime()


@pytest.mark.parametrize("kind", CLIENTS)
def test_an_expired_token_opens_nothing(
    lab: Lab,
    open_proxy: Proxy,
    start_client: StartClient,
    build_image: MakeImage,
    right: Login,
    request: pytest.FixtureRequest,
    kind: str,
) -> None:
    """A cached private image is refused to a client whose token has ended, and nobody hammers the token server."""
    image, name = build_image(), f"private/expired-{kind}"
    lab.push(image, name)
    private = reference(lab.token, name)
    assert start_client(kind, open_proxy).pull(private, right).returncode == 0
    request.getfixturevalue("expired")
    log = lab.auth.log.mark()
    refused = start_client(kind, open_proxy).pull(private, right)
    assert refused.returncode != 0
    assert 0 < log.count() < MOST_TOKENS
    lab.auth.set_lifetime()
    client = start_client(kind, open_proxy)
    assert client.pull(private, right).returncode == 0
    client.check(private, image)


@pytest.mark.slow
def test_a_token_of_the_operator_that_has_ended_is_replaced(
    lab: Lab, start_shared: StartShared, start_client: StartClient, build_image: MakeImage
) -> None:
    """The proxy pulls for clients without a login, waits until its tokens have ended, and pulls new images."""
    proxy = start_shared({"AUTH_REGISTRIES": f"token.lab.test:{USERNAME}:{PASSWORD}"})
    kinds = ("skopeo", "podman", "dockerd", "containerd", "buildah")
    lab.token.start()
    lab.auth.set_lifetime(2)
    try:
        for age in ("before", "after"):
            for kind in kinds:
                image, name = build_image(f"{age} {kind}"), f"private/ended-{kind}"
                lab.push(image, name)
                client = start_client(kind, proxy)
                pulled = client.pull(reference(lab.token, name))
                assert pulled.returncode == 0, pulled.stderr
                client.check(reference(lab.token, name), image)
            if age == "before":
                time.sleep(LEEWAY_S + 3)
    finally:
        lab.auth.set_lifetime()
