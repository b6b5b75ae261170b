"""What a registry took back is closed at all replicas, also if the bucket could not be told and the process died."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from e2e.test_shared_store import path, sha256, wait_until
from lab.image import random_chunks
from lab.lab import Lab
from lab.origin import Origin, Reply
from lab.proxy import Proxy
from lab.relay import Relay
from lab.seaweed import Seaweed, names_in

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

BLOB = b"".join(random_chunks("refused", 100_000))
TARGET = f"/v2/team/closed/blobs/{sha256(BLOB)}"
ACCESS_TTL_S = 1


@pytest.fixture
def weed(tmp_path: Path) -> Iterator[Seaweed]:
    """Start the engine."""
    with Seaweed(tmp_path / "weed") as engine:
        yield engine


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_refusal_outlives_the_process_that_could_not_tell_it(
    lab: Lab, weed: Seaweed, origin: Origin, tmp_path: Path, workers: str
) -> None:
    """With the registry away afterwards nobody gets what it let everybody read before."""
    url = f"https://{origin.name}{TARGET}"
    cache = tmp_path / "first" / "cache"
    with ExitStack() as cleanup:
        relay = cleanup.enter_context(Relay(weed.address))
        settings = {"ACCESS_TTL": f"{ACCESS_TTL_S}s", **weed.settings("shared")}
        own = {"WORKERS": workers, **weed.settings("shared", at=relay.address)}
        first: Proxy = cleanup.enter_context(lab.proxy(tmp_path / "first", {**settings, **own}))
        origin.serve(TARGET, Reply(BLOB))
        assert first.client().get(url).body == BLOB
        wait_until(lambda: path("about", sha256(BLOB)) in names_in(weed.bucket("shared")))
        relay.stall(down_bytes=0)
        time.sleep(1.5 * ACCESS_TTL_S)
        origin.serve(TARGET, Reply(status=401))
        assert first.client().get(url).status == 401
        first.kill()
        assert list((cache / "refusals").iterdir())
        origin.stop()
        relay.stall()
        first.start()

        assert first.client().get(url).status in (401, 403)
        wait_until(lambda: not list((cache / "refusals").iterdir()))
        second = cleanup.enter_context(lab.proxy(tmp_path / "second", settings))
        assert second.client().get(url).status in (401, 403)
        origin.start()
