"""In an outage a tag is what it was for another kind of client, if this one can read that."""

import pytest

from regproxy.stack.core import Core
from unit.stack.conftest import Configure
from unit.stack.registry import DOCKER, OCI, Registry, hang_up
from unit.stack.test_manifests import Ask, Puller, cache_status, response

BODY = b'{"schemaVersion":2,"layers":[]}'


@pytest.fixture
def puller(core: Core, ask: Ask) -> Puller:
    return Puller(core, ask)


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_tag_that_another_client_has_pulled(puller: Puller, registry: Registry, method: str) -> None:
    """It accepts more than the other one did, so it would be recorded apart."""
    registry.tag("3.20", BODY)
    await puller.pull(accept=OCI)
    registry.override = hang_up
    stale = await puller.pull(method=method, accept=f"{OCI}, {DOCKER}")
    assert (cache_status(stale), response(stale).status_code) == ("STALE", 200)
    assert response(stale).headers["content-type"] == OCI
    assert response(stale).raw_content == (BODY if method == "GET" else b"")


async def test_what_a_client_cannot_read_is_no_answer(puller: Puller, registry: Registry) -> None:
    """It would not know what to do with it."""
    registry.tag("3.20", BODY)
    await puller.pull(accept=OCI)
    registry.override = hang_up
    assert response(await puller.pull(accept=DOCKER)).status_code == 502


async def test_the_newest_of_them_is_served(puller: Puller, registry: Registry) -> None:
    """Not the one that happens to come first."""
    newer = BODY + b" "
    registry.tag("3.20", BODY)
    await puller.pull(accept=f"{OCI}, application/json")
    registry.tag("3.20", newer)
    await puller.pull(accept=OCI)
    registry.override = hang_up
    assert response(await puller.pull(accept=f"{OCI}, {DOCKER}")).raw_content == newer


async def test_a_registry_that_answers_is_asked(configure: Configure, ask: Ask, registry: Registry) -> None:
    """The answer for others is for an outage only, also where tags are fresh for an hour."""
    puller = Puller(configure(ENABLE_MANIFEST_CACHE="true"), ask)
    registry.tag("3.20", BODY)
    await puller.pull(accept=OCI)
    assert await puller.status(accept=f"{OCI}, {DOCKER}") == "MISS"
