"""A process with the real store that is busy until it is killed: `crash_child.py <directory> <port> <seed>`.

It downloads, stores manifests and tags, reads, and keeps house, all at once and more than the cap holds. It prints
`open` when the store is open, `resumed` for a download that went on where another process had ended, and `wrong` with
the digest when it was given something else than it asked for.
"""

import asyncio
import os
import random
import sys
import time
from pathlib import Path

from lab.crash_source import BODIES, CAP_BYTES, DIGESTS, MANIFESTS
from regproxy.oci.descriptor import Descriptor
from regproxy.oci.digest import Digest
from regproxy.store import growing
from regproxy.store.content import Store
from regproxy.store.errors import StoreError
from regproxy.store.ingest import Ingest
from regproxy.store.records import TagKey, TagRecord
from regproxy.store.scrub import Pace

_DOWNLOADS = 4
_MEDIA_TYPE = "application/vnd.oci.image.manifest.v1+json"


class Busy:
    """One life."""

    def __init__(self, store: Store, port: int, seed: str) -> None:
        self._store, self._port = store, port
        self._chance = random.Random(seed)  # noqa: S311 - not a secret

    async def live(self) -> None:
        """Do everything at once, for ever."""
        async with asyncio.TaskGroup() as tasks:
            for _ in range(_DOWNLOADS):
                tasks.create_task(self._download())
            tasks.create_task(self._store_manifests())
            tasks.create_task(self._read())
            tasks.create_task(self._store.housekeeping(interval_s=0.01))

    async def _download(self) -> None:
        while True:
            number = self._chance.randrange(len(BODIES))

            async def fetch(ingest: Ingest, number: int = number) -> None:
                await self._fetch(ingest, number)

            stored = self._store.open_content(DIGESTS[number])
            if stored is not None:
                stored.close()
                await asyncio.sleep(0)
                continue
            try:
                await self._store.join_or_start(DIGESTS[number], fetch).verified()
            except (StoreError, ConnectionError) as error:
                await asyncio.sleep(0.001)
                if "hashes to" in str(error):
                    say("mismatch", DIGESTS[number])

    async def _fetch(self, ingest: Ingest, number: int) -> None:
        start = ingest.missing_from()
        if start:
            say("resumed", ingest.digest)
        await ingest.begin(len(BODIES[number]) if self._chance.random() < 0.7 else None, None)
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            writer.write(b"%d %d\n" % (number, start))
            while piece := await reader.read(65536):
                await ingest.write([piece])
                if self._chance.random() < 0.01:
                    raise ConnectionResetError
        finally:
            writer.close()
        await ingest.finish()

    async def _store_manifests(self) -> None:
        while True:
            body = self._chance.choice(MANIFESTS)
            digest = Digest.of(body)
            await self._store.put_content(digest, body, _MEDIA_TYPE)
            key = TagKey("registry.test", "team/app", str(self._chance.randrange(20)), (_MEDIA_TYPE,))
            record = TagRecord(Descriptor(_MEDIA_TYPE, digest, len(body)), time.time())
            await self._store.put_tag_record(key, record)
            await asyncio.sleep(0.002)

    async def _read(self) -> None:
        while True:
            digest = self._chance.choice(DIGESTS)
            stored = self._store.open_content(digest)
            if stored is not None:
                with stored:
                    body = os.pread(stored.fileno(), stored.size_bytes + 1, 0)
                if Digest.of(body) != digest:
                    say("wrong", digest)
            await asyncio.sleep(0.001)


def say(word: str, what: object = "") -> None:
    """Print a word for the parent, at once: there is no later for a process that is killed."""
    os.write(1, f"{word} {what}\n".encode())


def main() -> None:
    """Open the store and be busy."""
    directory, port, seed = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    growing.SIDECAR_EVERY_BYTES = 64 * 1024
    store = Store(directory, CAP_BYTES, inactive_s=3600, min_free_bytes=0)
    store.pace = Pace(bytes_per_s=50e6, read_again_s=0.2, all_again_s=5, look_every_s=0.05)
    say("opening")
    store.open()
    say("open")
    asyncio.run(Busy(store, port, seed).live())


if __name__ == "__main__":
    main()
