"""What the proxy says of tags that move, vanish and come back at a real registry."""

import logging
from types import SimpleNamespace

import pytest

from regproxy.oci.digest import Digest
from regproxy.stack.core import Core
from regproxy.store.tag_history import ChangeKind, TagChange
from unit.stack.conftest import Configure, Request
from unit.stack.registry import DOCKER, OCI, Registry, hang_up
from unit.stack.test_manifests import NEW, OLD, TAG, Puller

BOTH = f"{OCI}, {DOCKER}"


@pytest.fixture
async def puller(configure: Configure, ask: Request) -> Puller:
    """Return one that has every tag revalidated."""
    return Puller(configure(NOT_FOUND_TIME="0"), ask)


@pytest.fixture(autouse=True)
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "regproxy.stack.tag_changes")
    return caplog


async def history(core: Core, registry: Registry) -> list[tuple[ChangeKind, Digest | None, Digest | None]]:
    """Return the tag's changes, oldest first."""
    changes: tuple[TagChange, ...] = await core.store.tag_history(registry.name, "library/alpine", "3.20")
    return [(change.kind, change.before, change.after) for change in reversed(changes)]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_a_move_is_told_once(
    puller: Puller, registry: Registry, log: pytest.LogCaptureFixture, method: str
) -> None:
    """From which digest to which; whether a GET or a HEAD meets it first."""
    old = registry.tag("3.20", OLD)
    await puller.pull()
    new = registry.tag("3.20", NEW)
    for _ in range(2):
        await puller.pull(method=method)
        await puller.pull()

    assert log.messages == [f"tag moved: {registry.name}/library/alpine:3.20 from {old} to {new}"]
    assert await history(puller.core, registry) == [(ChangeKind.MOVED, old, new)]
    assert puller.core.store.activity.tag_changes == {(registry.name, "moved"): 1}


async def test_kinds_of_clients_see_one_move(puller: Puller, registry: Registry, log: pytest.LogCaptureFixture) -> None:
    """Each has a record of its own; the move is the same."""
    registry.tag("3.20", OLD)
    for accept in (OCI, BOTH):
        await puller.pull(accept=accept)
    registry.tag("3.20", NEW)
    for accept in (OCI, BOTH):
        await puller.pull(accept=accept)

    assert len(log.messages) == 1


async def test_there_and_back_are_two_moves(puller: Puller, registry: Registry) -> None:
    """A tag that is set back moves, too."""
    old = registry.tag("3.20", OLD)
    await puller.pull()
    new = registry.tag("3.20", NEW)
    await puller.pull()
    registry.tag("3.20", OLD)
    await puller.pull()

    assert await history(puller.core, registry) == [(ChangeKind.MOVED, old, new), (ChangeKind.MOVED, new, old)]


async def test_a_tag_that_vanishes_and_comes_back(
    puller: Puller, registry: Registry, log: pytest.LogCaptureFixture
) -> None:
    """Told once each, the first as a warning."""
    old = registry.tag("3.20", OLD)
    await puller.pull()
    del registry.contents[TAG]
    for _ in range(2):
        assert (await puller.pull()).response is not None
    new = registry.tag("3.20", NEW)
    await puller.pull()

    assert [(record.levelname, record.getMessage()) for record in log.records] == [
        (
            "WARNING",
            f"tag vanished: {registry.name}/library/alpine:3.20 was {old}, the registry does not have it any more",
        ),
        ("INFO", f"tag is back: {registry.name}/library/alpine:3.20 is {new}"),
    ]
    assert await history(puller.core, registry) == [(ChangeKind.VANISHED, old, None), (ChangeKind.BACK, None, new)]


async def test_what_is_no_change(puller: Puller, registry: Registry, log: pytest.LogCaptureFixture) -> None:
    """A first pull, a 404 for a tag that never was, an outage."""
    await puller.pull()
    registry.tag("3.20", OLD)
    await puller.pull()
    registry.override = hang_up
    await puller.pull()

    assert not [message for message in log.messages if message.startswith("tag ")]
    assert await history(puller.core, registry) == []


async def test_a_pull_goes_on_when_nothing_can_be_kept(
    puller: Puller, registry: Registry, clock: SimpleNamespace
) -> None:
    """The history is the least of its worries."""
    del clock
    registry.tag("3.20", OLD)
    await puller.pull()
    registry.tag("3.20", NEW)
    puller.core.store.close()

    flow = await puller.pull()
    assert flow.response is not None
    assert flow.response.raw_content == NEW
    puller.core.store.open()
