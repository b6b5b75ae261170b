"""What a power loss may have broken is served by no worker before one has hashed it."""

from pathlib import Path

import pytest

from regproxy.oci.digest import Digest
from regproxy.store.content import Store
from regproxy.store.layout import Layout
from unit.store.crew.crew_of_stores import crew_of_stores

BODY = b'{"schemaVersion": 2}'
DIGEST = Digest.of(BODY)


@pytest.mark.parametrize("after", ["a kill", "a clean end"])
async def test_all_workers_doubt_what_was_written_before_it(tmp_path: Path, after: str) -> None:
    """Also when the proxy had ended a moment before; the one that keeps house settles it for all."""
    store = Store(tmp_path, 10_000_000, 86400.0, 0)
    store.open()
    await store.put_content(DIGEST, BODY, "a/b")
    store.close()
    layout = Layout(tmp_path)
    if after == "a kill":
        layout.heartbeat.touch()
    else:
        layout.stopped.write_text("another run of the machine")
    with crew_of_stores(tmp_path, 3) as members:
        stores = [member.store for member in members]
        assert not any(store.holds(DIGEST) for store in stores)
        members[0].store._keeps_house = True
        for store in stores:
            await store.tidy()
        assert all(store.holds(DIGEST) for store in stores)
