"""The two ways into a client's socket: every byte of the file once, in order, and never more than the socket takes."""

import os
import random
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from regproxy.engine import channel as channel_module
from regproxy.engine.authority import Authority
from regproxy.engine.certificates import Certificates
from regproxy.engine.channel import (
    CHUNK_BYTES,
    SLOW_CHUNK_BYTES,
    Channel,
    FileShrankError,
    PlainChannel,
    TlsChannel,
)
from unit.engine.test_certificates import now
from unit.engine.tls_pair import TlsClient, accept, pending, shake_hands

CONTENT = random.Random(7).randbytes(1_500_000)  # noqa: S311 - not a secret

type Decrypt = Callable[[bytes], bytes]


class Line:
    """A channel, the client's end of its socket, and how the client reads."""

    def __init__(self, channel: Channel, ours: socket.socket, client: socket.socket, decrypt: Decrypt) -> None:
        self.channel = channel
        self.ours = ours
        self.client = client
        self._decrypt = decrypt
        self.received = bytearray()
        self.received_raw_bytes = 0

    def drain(self) -> int:
        """Let the client read what is there; returns the number of bytes."""
        count = 0
        while True:
            try:
                piece = self.client.recv(1 << 20)
            except BlockingIOError:
                return count
            count += len(piece)
            self.received_raw_bytes += len(piece)
            self.received += self._decrypt(piece)

    def push_all(self, fd: int, start: int, end: int) -> int:
        """Push and read in turns until all is there; returns how often the socket was full."""
        position, blocked = start, 0
        while position < end or self.channel.has_unsent:
            pushed = self.channel.push(fd, position, end)
            assert pushed.position >= position
            position = pushed.position
            blocked += pushed.blocked
            self.drain()
        return blocked


@pytest.fixture(params=["plain", "TLS 1.3", "TLS 1.2"])
def line(request: pytest.FixtureRequest, certificates: Certificates, authority: Authority) -> Iterator[Line]:
    ours, client = socket.socketpair()
    ours.setblocking(False)
    client.setblocking(False)
    if request.param == "plain":
        yield Line(PlainChannel(ours.fileno()), ours, client, lambda piece: piece)
    else:
        peer, server = TlsClient("quay.io", authority), accept(certificates.context_for("quay.io", now()))
        if request.param == "TLS 1.2":
            peer.context.maximum_version = peer.context.maximum_version.TLSv1_2
        shake_hands(peer, server)
        peer.decrypt(pending(server))  # session tickets
        yield Line(TlsChannel(ours.fileno(), server), ours, client, peer.decrypt)
    ours.close()
    client.close()


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "blob").write_bytes(CONTENT)
    opened = os.open(tmp_path / "blob", os.O_RDWR)
    yield opened
    os.close(opened)


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (0, 0),
        (0, 1),
        (5, 6),
        (0, 16 * 1024),
        (0, 16 * 1024 + 1),
        (1, CHUNK_BYTES),
        (0, CHUNK_BYTES),
        (0, CHUNK_BYTES + 1),
        (777, 3 * CHUNK_BYTES + 778),
        (0, len(CONTENT)),
        (len(CONTENT) - 1, len(CONTENT)),
    ],
)
def test_exactly_these_bytes_arrive(line: Line, fd: int, start: int, end: int) -> None:
    """Whatever the part of the file and however often the socket is full in between."""
    line.push_all(fd, start, end)

    assert line.received == CONTENT[start:end]
    assert not line.channel.has_unsent


def test_a_full_socket_ends_the_push(line: Line, fd: int) -> None:
    """It returns at once and says so; nothing is lost or repeated when it goes on."""
    first = line.channel.push(fd, 0, len(CONTENT))

    assert first.blocked
    assert 0 < first.position < len(CONTENT)
    again = line.channel.push(fd, first.position, len(CONTENT))
    assert again.blocked
    assert again.position == first.position
    line.drain()
    assert line.push_all(fd, first.position, len(CONTENT)) > 0
    assert line.received == CONTENT


def test_what_was_encrypted_is_sent_before_the_end(line: Line, fd: int) -> None:
    """With TLS the position may be at the end while bytes still wait: `has_unsent` says whether to push again."""
    position = 0
    while position < len(CONTENT):
        position = line.channel.push(fd, position, len(CONTENT)).position
        if position < len(CONTENT):
            line.drain()
    line.drain()
    while line.channel.has_unsent:
        line.channel.push(fd, position, len(CONTENT))
        line.drain()

    assert line.received == CONTENT


def test_a_fast_client_takes_turns(line: Line, fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a turn the thread is given back although the socket would take more."""
    monkeypatch.setattr(channel_module, "TURN_BYTES", 1000)

    pushed = line.channel.push(fd, 500, len(CONTENT))

    assert (pushed.position, pushed.blocked) == (1500, False)
    line.drain()
    assert line.received == CONTENT[500:1500]


def test_a_file_that_has_shrunk_is_an_error(line: Line, fd: int) -> None:
    """The client was promised more: what is there is sent, then the push fails instead of spinning."""
    os.ftruncate(fd, 1000)

    with pytest.raises(FileShrankError, match="ends at 1000, before 1500000"):
        line.push_all(fd, 0, len(CONTENT))

    line.drain()
    assert line.received == CONTENT[:1000]


def test_a_client_that_has_gone_is_an_error(line: Line, fd: int) -> None:
    """OSError, not a signal and not silence."""
    line.client.close()

    with pytest.raises(OSError, match="Broken pipe"):
        line.channel.push(fd, 0, len(CONTENT))


def test_the_room_for_tls_is_enough(certificates: Certificates, authority: Authority, fd: int) -> None:
    """A chunk and its overhead are taken from OpenSSL in one piece, so none is left behind at the end of a body."""
    ours, client = socket.socketpair()
    with ours, client:
        ours.setblocking(False)
        peer, server = TlsClient("quay.io", authority), accept(certificates.context_for("quay.io", now()))
        shake_hands(peer, server)
        pending(server)

        TlsChannel(ours.fileno(), server).push(fd, 0, CHUNK_BYTES)

        assert pending(server) == b""


class TestChunks:
    """A slow client's connection keeps one small chunk; a client that keeps up gets large ones."""

    @pytest.fixture
    def chunks(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        """Return the sizes of what is read from the file, as they come."""
        sizes: list[int] = []

        def pread(fd: int, size: int, position: int) -> bytes:
            sizes.append(size)
            return os.pread(fd, size, position)

        monkeypatch.setattr(channel_module, "os", SimpleNamespace(pread=pread, write=os.write))
        return sizes

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
        """Return the time that turns are judged by."""
        turned = SimpleNamespace(now_s=100.0)
        monkeypatch.setattr(channel_module, "time", SimpleNamespace(monotonic=lambda: turned.now_s))
        return turned

    @pytest.mark.parametrize("line", ["TLS 1.3"], indirect=True)
    @pytest.mark.parametrize(("pause_s", "expected"), [(10.0, SLOW_CHUNK_BYTES), (0.0001, CHUNK_BYTES)])
    def test_the_chunk_follows_the_client(
        self, line: Line, fd: int, chunks: list[int], clock: SimpleNamespace, pause_s: float, expected: int
    ) -> None:
        """Judged by what it took from one turn to the next."""
        pushed = line.channel.push(fd, 0, len(CONTENT))
        assert pushed.blocked
        assert set(chunks) == {SLOW_CHUNK_BYTES}
        clock.now_s += pause_s
        line.drain()
        chunks.clear()

        line.channel.push(fd, pushed.position, len(CONTENT))

        assert set(chunks) == {expected}

    @pytest.mark.parametrize("line", ["TLS 1.3"], indirect=True)
    def test_a_client_that_takes_much_at_once_is_fast(
        self, line: Line, fd: int, chunks: list[int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Without a pause to judge by."""
        monkeypatch.setattr(channel_module, "BURST_BYTES", SLOW_CHUNK_BYTES)

        line.channel.push(fd, 0, len(CONTENT))

        assert chunks[:2] == [SLOW_CHUNK_BYTES, CHUNK_BYTES]
