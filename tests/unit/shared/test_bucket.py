"""What is told of an engine's errors, and what needs the extra."""

import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import obstore
import pytest
from obstore.store import MemoryStore

from regproxy.policy.bucket_address import BucketAddress
from regproxy.shared.bucket import LARGEST_RECORD_BYTES, Bucket, BucketError, ConditionFailed, ExtraMissing
from regproxy.shared.tier import SharedTier, TierError
from regproxy.store.content import Store

KEY_ID, SECRET = "AKIDOFTHETEST", "secret-of-the-test"


class Engine(BaseHTTPRequestHandler):
    """Refuses everything, and repeats who asked, as engines do."""

    status = 403

    def do_GET(self) -> None:
        """Refuse."""
        body = f"<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>{KEY_ID}</AWSAccessKeyId></Error>".encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_GET  # noqa: N815 - the name is the base class's

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def engine() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Engine) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)


@pytest.mark.usefixtures("login")
async def test_an_error_says_status_and_code_and_no_credentials(engine: str) -> None:
    """What the engine repeats of the request is left out."""
    bucket = Bucket.open(BucketAddress("bucket", endpoint=engine, region="us-east-1"), None)
    with pytest.raises(BucketError) as read:
        await bucket.get("x")
    with pytest.raises(BucketError) as written:
        await bucket.put("x", b"")

    assert str(read.value) == str(written.value) == "it answered 403 Forbidden (SignatureDoesNotMatch)"


@pytest.mark.usefixtures("login")
async def test_nobody_there_is_said_as_that(engine: str) -> None:
    """No address, no library's words."""
    nobody = engine.rpartition(":")[0] + ":1"
    bucket = Bucket.open(BucketAddress("bucket", endpoint=nobody, region="us-east-1"), None)
    with pytest.raises(BucketError) as read:
        await bucket.get("x")

    assert str(read.value) == "no connection"


async def test_conditions_are_kept() -> None:
    """Only if it is new, or still what was read."""
    memory = MemoryStore()
    bucket = Bucket(memory, memory)
    first = await bucket.put("x", b"1", only_new=True)
    with pytest.raises(ConditionFailed):
        await bucket.put("x", b"2", only_new=True)
    await bucket.put("x", b"3", replaces=first)
    with pytest.raises(ConditionFailed):
        await bucket.put("x", b"4", replaces=first)

    stored = await bucket.get("x")
    assert stored is not None
    assert stored.body == b"3"


async def test_an_object_that_is_no_record_is_not_read_into_memory() -> None:
    """However large somebody made it."""
    memory = MemoryStore()
    obstore.put(memory, "x", bytes(LARGEST_RECORD_BYTES + 1))
    stored = await Bucket(memory, memory).get("x")

    assert stored is not None
    assert stored.body == b""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store(tmp_path / "cache", 1024 * 1024 * 1024, 3600.0, 0)
    opened.open()
    yield opened
    opened.close()


def test_without_the_extra_it_is_said_which_one(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the setting and what to install."""
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ExtraMissing):
        Bucket.open(BucketAddress("bucket"), None)
    with pytest.raises(TierError, match=r"STORE_URL=s3://bucket: .*install registry-proxy\[s3\]"):
        SharedTier.open(store, BucketAddress("bucket"), "k" * 32, 300.0, None)


def test_records_need_a_key_that_lasts(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without static keys STORE_KEY has to be set; keys of a session are another pair every few hours."""
    for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", "/nonexistent")
    with pytest.raises(TierError, match="STORE_KEY is not set"):
        SharedTier.open(store, BucketAddress("bucket"), "", 300.0, None)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    SharedTier.open(store, BucketAddress("bucket"), "", 300.0, None)
    monkeypatch.setenv("AWS_SESSION_TOKEN", "token")
    with pytest.raises(TierError, match="STORE_KEY is not set"):
        SharedTier.open(store, BucketAddress("bucket"), "", 300.0, None)
