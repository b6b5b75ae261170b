"""A connection from its first byte: in pieces, at once, pipelined; what it answers and what it hands over."""

import asyncio
import contextlib
import os
import socket
import ssl
from pathlib import Path

import pytest

from regproxy.engine.bodies import Sent
from regproxy.engine.warm_connection import CONNECT_ANSWER, HEAD_LIMIT_BYTES
from unit.engine.tls_pair import TlsClient
from unit.engine.warm_stage import CONNECT, CONTENT, HOST, SOON_S, Stage, complaints, get, until


class TestArriving:
    @pytest.mark.parametrize("piece_bytes", [1, 7, 100_000])
    async def test_everything_may_come_in_pieces(self, stage: Stage, piece_bytes: int) -> None:
        """CONNECT, handshake and request, of one byte each: each is waited for, none is taken twice."""
        client = await stage.client()

        async def send(whole: bytes) -> None:
            for start in range(0, len(whole), piece_bytes):
                expected_bytes = stage.last.received_bytes + len(whole[start : start + piece_bytes])
                await client.send(whole[start : start + piece_bytes])
                await until(lambda limit_bytes=expected_bytes: stage.last.received_bytes >= limit_bytes)  # type: ignore[misc]

        await send(CONNECT)
        await client.expect_connected()
        await send(client.tls.step())
        while not client.tls.connected:
            await send(client.tls.step(await client.recv()))
        await send(client.tls.encrypt(get("/small")))

        assert await client.body() == b"small"
        assert stage.taken == []

    async def test_the_client_need_not_wait_for_the_answer_to_its_connect(self, stage: Stage) -> None:
        """CONNECT and ClientHello in one segment."""
        client = await stage.client()
        await client.send(CONNECT + client.tls.step())
        received = b""
        while len(received) <= len(CONNECT_ANSWER):
            received += await client.recv()
        assert received.startswith(CONNECT_ANSWER)

        await client.shake_hands(received.removeprefix(CONNECT_ANSWER))
        await client.ask(get("/small"))

        assert await client.body() == b"small"

    async def test_a_request_may_come_with_the_end_of_the_handshake(self, stage: Stage) -> None:
        """As clients do that save a round trip; a file as well."""
        client = await stage.client()
        await client.connect()
        await client.send(client.tls.step())
        received = b""
        while not client.tls.connected:
            finished = client.tls.step(await client.recv())
            received += finished
        await client.send(received + client.tls.encrypt(get("/part")))

        assert await client.body() == CONTENT[1000:300_000]

    async def test_what_is_asked_is_passed_on(self, stage: Stage) -> None:
        """Host and port of the CONNECT, never of the Host field; the client's address."""
        client = await stage.established()
        await client.ask(b"GET /small HTTP/1.1\r\nHost: other.example:99\r\nX: y\r\n\r\n")
        await client.body()

        (asked,) = stage.reads.asked
        assert (asked.host, asked.port, asked.client_ip) == (HOST, 443, "127.0.0.1")
        assert asked.head.fields == (("host", "other.example:99"), ("x", "y"))


class TestAnswering:
    async def test_one_after_the_other(self, stage: Stage) -> None:
        """As long as the client likes; HEAD has no body."""
        client = await stage.established()
        for _ in range(5):
            await client.ask(get("/small"))
            assert await client.body() == b"small"
        await client.ask(get("/small", method="HEAD"), get("/small"))
        received = b""
        while not received.endswith(b"small"):
            received = await client.read()

        assert received.count(b"HTTP/1.1 200 OK") == 2
        assert received.count(b"\r\n\r\nsmall") == 1
        assert [sent.body_bytes for _, sent in stage.reads.ended] == [5, 5, 5, 5, 5, 0, 5]

    async def test_pipelined_requests_are_answered_in_order(self, stage: Stage) -> None:
        """Small ones, files and parts of files, all asked at once."""
        client = await stage.established()
        await client.ask(
            get("/small"), get("/file"), get("/small"), get("/part"), get("/part"), get("/large"), get("/small")
        )

        bodies = [await client.body() for _ in range(7)]

        part = CONTENT[1000:300_000]
        assert bodies == [b"small", CONTENT, b"small", part, part, stage.reads.large, b"small"]
        assert all(sent.error is None for _, sent in stage.reads.ended)

    async def test_a_request_that_comes_while_a_body_is_sent_waits(self, stage: Stage) -> None:
        """Nothing is read meanwhile, so nothing is kept of a client that floods; afterwards it is answered."""
        client = await stage.established()
        await client.ask(get("/file"))
        await until(lambda: bool(stage.reads.asked) and not stage.last._transport.is_reading())
        received_bytes = stage.last.received_bytes
        flood = asyncio.ensure_future(client.ask(*[get("/small")] * 20_000))
        await asyncio.sleep(SOON_S)
        assert stage.last.received_bytes == received_bytes

        assert await client.body() == CONTENT
        for _ in range(20_000):
            assert await client.body() == b"small"
        await flood

    async def test_nothing_is_read_while_a_body_is_sent_whoever_sends_it(self, stage: Stage) -> None:
        """What came would be lost: TLS belongs to the sender, and it is not this object's to keep."""
        gate = asyncio.Event()

        async def send(*_: object) -> Sent:
            await gate.wait()
            return Sent(0, None)

        stage.sender.send = send  # type: ignore[method-assign, assignment]
        client = await stage.established()
        await client.ask(get("/part"))
        await until(lambda: bool(stage.reads.asked))
        await client.ask(get("/small"))
        await asyncio.sleep(SOON_S)
        assert stage.reads.targets == ["/part"]
        gate.set()
        while not (await client.read()).endswith(b"small"):
            pass

        assert stage.reads.targets == ["/part", "/small"]

    async def test_close_is_obeyed(self, stage: Stage) -> None:
        """After the answer, with TLS's own end; what was asked behind it is not answered."""
        for target, body in (("/small", b"small"), ("/part", CONTENT[1000:300_000]), ("/large", stage.reads.large)):
            stage.reads.asked.clear()
            client = await stage.established()
            await client.ask(get(target, "Connection: close"), get("/small"), get("/part"))
            assert await client.body() == body
            assert await client.end() == b""
            assert client.tls.heard_goodbye
            assert stage.reads.targets == [target]

    async def test_a_file_that_is_too_short_cuts_the_connection(self, stage: Stage, tmp_path: Path) -> None:
        """Neither the length promised nor TLS's end: nobody can take it for whole. What was asked behind it is lost."""
        os.truncate(tmp_path / "blob", 500_000)
        client = await stage.established()
        await client.ask(get("/file"), get("/small"))

        received = await client.end()

        assert received.partition(b"\r\n\r\n")[2] == CONTENT[:500_000]
        assert not client.tls.heard_goodbye
        ((target, sent),) = stage.reads.ended
        assert target == "/file"
        assert sent.error is not None
        assert "ends at 500000" in sent.error

    async def test_a_client_may_leave_in_the_middle_of_a_body(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The transfer ends and is logged as cut; nothing of the connection stays, not even a timer."""
        client = await stage.established()
        await client.ask(get("/file"), get("/miss"))
        await client.recv()
        client.sock.close()
        await until(lambda: stage.last.is_lost)

        ((_, sent),) = stage.reads.ended
        assert sent.error is not None
        assert "the client has gone" in sent.error
        assert stage.last._timer.cancelled()
        assert stage.taken == []
        assert complaints(caplog) == []

    async def test_a_client_may_leave_with_the_last_byte_of_a_body(self, stage: Stage) -> None:
        """The sender has seen no error, but there is nobody to go on with: mitmproxy would wait for its end in vain."""
        client = await stage.established()
        send = stage.sender.send

        async def send_and_lose(*arguments: object) -> object:
            sent = await send(*arguments)  # type: ignore[arg-type]
            reading.cancel()  # before the close: an event loop never hears of a socket that is closed under it
            await asyncio.wait([reading])
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.sock.close()
            await until(lambda: stage.last.is_lost)
            return sent

        stage.sender.send = send_and_lose  # type: ignore[method-assign, assignment]
        await client.ask(get("/part"), get("/miss"))
        reading = asyncio.ensure_future(client.body())
        await until(lambda: bool(stage.reads.ended))

        assert stage.taken == []
        assert stage.reads.targets == ["/part"]
        assert stage.last._timer.cancelled()


class TestHandingOver:
    @pytest.mark.parametrize(
        "first",
        [
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"POST http://a/ HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx",
            b"\x16\x03\x01\x02\x00",
            b"\0",
            b"CONNECT other.example:443 HTTP/1.1\r\n\r\n\x16\x03\x01",
            b"CONNECT quay.io:444 HTTP/1.1\r\n\r\n",
            b"CONNECT [::1]:443 HTTP/1.1\r\n\r\n",
            CONNECT.replace(b"\r\n\r\n", b"\r\nProxy-Authorization: Basic eDp5\r\n\r\n"),
            b"CONNECT " + b"a" * (HEAD_LIMIT_BYTES + 1),
        ],
    )
    async def test_what_begins_differently_is_handed_over_whole(self, stage: Stage, first: bytes) -> None:
        """With every byte, and unanswered."""
        client = await stage.client()
        await client.send(first)
        await until(lambda: bool(stage.taken))

        (taken,) = stage.taken
        assert taken.handed_over.authority is None
        assert taken.handed_over.tls is None
        assert first.startswith(taken.handed_over.early)
        rest_bytes = len(first) - len(taken.handed_over.early)
        assert taken.handed_over.early + await taken.reader.readexactly(rest_bytes) == first
        assert stage.last._timer.cancelled()

    @pytest.mark.parametrize("plain", [get("/small"), b"\0\0\0", b"SSH-2.0-x\r\n", b"\x16\x04\x01"])
    async def test_plain_bytes_behind_a_connect_are_handed_over(self, stage: Stage, plain: bytes) -> None:
        """A registry may speak plain HTTP; the CONNECT has been answered."""
        client = await stage.client()
        await client.connect()
        await client.send(plain)
        await until(lambda: bool(stage.taken))

        assert stage.taken[0].handed_over.authority == (HOST, 443)
        assert (stage.taken[0].handed_over.tls, stage.taken[0].handed_over.early) == (None, plain)

    @pytest.mark.parametrize(
        "request_",
        [
            get("/miss"),
            get("/small", "Content-Length: 3") + b"abc",
            get("/small", method="PUT"),
            get("/small").replace(b"\r\n", b"\n") + b"\r\n\r\n",
            b"\r\n\r\n" + get("/small"),
            b"GET https://quay.io/small HTTP/1.1\r\nHost: quay.io\r\n\r\n",
            CONNECT,
        ],
    )
    async def test_the_first_request_that_is_not_at_hand_takes_the_connection_along(
        self, stage: Stage, request_: bytes
    ) -> None:
        """With TLS, the request and what was pipelined behind it; what came before it has been answered."""
        client = await stage.established()
        await client.ask(get("/small"), get("/part"), request_, get("/small"))

        assert await client.body() == b"small"
        assert await client.body() == CONTENT[1000:300_000]
        await until(lambda: bool(stage.taken))
        handed_over = stage.taken[0].handed_over
        assert (handed_over.authority, handed_over.early) == ((HOST, 443), request_ + get("/small"))
        assert handed_over.tls is not None
        assert [target for target in stage.reads.targets if target != "/miss"] == ["/small", "/part"]
        handed_over.tls.sendall(b"from mitmproxy")
        stage.taken[0].transport.write(handed_over.tls.bio_read(1000))
        assert client.tls.decrypt(await client.recv()) == b"from mitmproxy"
        await client.ask(b"and back")
        handed_over.tls.bio_write(await stage.taken[0].reader.read(1000))
        assert handed_over.tls.recv(100) == b"and back"

    async def test_an_error_in_the_answering_is_logged_and_handed_over(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        """The long way meets it again, and tells the client."""
        client = await stage.established()
        await client.ask(get("/error"))
        await until(lambda: bool(stage.taken))

        assert stage.taken[0].handed_over.early == get("/error")
        assert complaints(caplog) == [f"GET to {HOST} could not be answered at once"]

    async def test_a_flood_without_an_end_is_handed_over(self, stage: Stage) -> None:
        """What is kept of it is bounded; the refusal is mitmproxy's."""
        client = await stage.established()
        flood = asyncio.ensure_future(client.ask(b"GET /" + b"a" * 500_000))
        await until(lambda: bool(stage.taken))

        early = stage.taken[0].handed_over.early
        assert HEAD_LIMIT_BYTES < len(early) <= HEAD_LIMIT_BYTES + 256 * 1024
        await flood

    async def test_a_head_of_the_largest_size_is_still_waited_for(self, stage: Stage) -> None:
        """A byte less than too much, then its end."""
        client = await stage.established()
        await client.ask(get("/small")[:-2] + b"X: " + b"a" * (HEAD_LIMIT_BYTES - 200))
        await asyncio.sleep(SOON_S)
        assert stage.taken == []
        await client.ask(b"\r\n\r\n")

        assert await client.body() == b"small"

    async def test_a_half_closed_connection_is_handed_over_with_its_end(self, stage: Stage) -> None:
        """The stream reads the FIN and answers all the same."""
        client = await stage.established()
        await client.ask(get("/miss"))
        client.sock.shutdown(socket.SHUT_WR)
        await until(lambda: bool(stage.taken))

        assert await stage.taken[0].reader.read() == b""
        assert not stage.taken[0].transport.is_closing()


class TestTls:
    async def test_a_client_that_does_not_trust_the_ca_is_told_of_in_one_line(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        """With its address, the host and OpenSSL's reason; no traceback."""
        client = await stage.client()
        client.tls = TlsClient(HOST, stage._authority)
        client.tls.context = ssl.create_default_context()
        await client.connect()
        with pytest.raises(ssl.SSLCertVerificationError):
            await client.shake_hands()
        await client.send(client.tls.encrypted())

        assert await client.recv() == b""
        (told,) = complaints(caplog)
        assert told.startswith(f"127.0.0.1: TLS for {HOST} failed: ")
        assert "unknown ca" in told
        assert all(record.exc_info is None for record in caplog.records)

    @pytest.mark.parametrize(
        "garbage", [b"\x16\x03\x01\x00\x05hello", b"\x16\x03\x03\xff\xff" + b"x" * 70_000, b"\x16\x03\x01\x00\x00" * 50]
    )
    async def test_garbage_that_looks_like_tls_ends_the_connection(
        self, stage: Stage, caplog: pytest.LogCaptureFixture, garbage: bytes
    ) -> None:
        """With one line."""
        client = await stage.client()
        await client.connect()
        with contextlib.suppress(ConnectionResetError, BrokenPipeError):
            await client.send(garbage)
        with contextlib.suppress(ConnectionResetError):
            while await client.recv():
                pass

        (told,) = complaints(caplog)
        assert f"TLS for {HOST} failed: " in told

    async def test_garbage_between_records_ends_the_connection(
        self, stage: Stage, caplog: pytest.LogCaptureFixture
    ) -> None:
        """What was asked before it in the same segment may be lost; nothing is said, for anyone can do that."""
        client = await stage.established()
        await client.send(b"GET / HTTP/1.1\r\n\r\n")
        while await client.recv():
            pass

        assert stage.last.is_lost
        assert complaints(caplog) == []

    async def test_http_2_is_not_chosen(self, stage: Stage) -> None:
        """The client offers it first."""
        client = await stage.established()

        assert client.tls.tls.selected_alpn_protocol() == "http/1.1"
