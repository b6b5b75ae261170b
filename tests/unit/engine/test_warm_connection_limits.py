"""A connection's limits: clients that leave, that are slow, that do not read; and what is left of them."""

import asyncio
import contextlib
import gc
import socket
import weakref
from collections.abc import Awaitable, Callable

import pytest

from regproxy.engine.warm_connection import CONNECT_ANSWER
from unit.engine.warm_stage import CONNECT, CONTENT, SOON_S, Client, Stage, complaints, get, until


class TestEnds:
    async def test_a_client_that_says_goodbye_hears_it_too(self, stage: Stage) -> None:
        """close_notify without FIN: TLS is ended from both sides, then the connection."""
        client = await stage.established()
        await client.send(client.say_goodbye())

        assert await client.end() == b""
        assert client.tls.heard_goodbye

    async def test_what_was_asked_before_the_goodbye_is_answered(self, stage: Stage) -> None:
        """Requests and close_notify in one segment."""
        client = await stage.established()
        requests = client.tls.encrypt(get("/small") + get("/part") + get("/small"))
        await client.send(requests + client.say_goodbye())

        assert [await client.body() for _ in range(3)] == [b"small", CONTENT[1000:300_000], b"small"]
        assert await client.end() == b""
        assert client.tls.heard_goodbye
        assert stage.reads.targets == ["/small", "/part", "/small"]
        assert [sent.error for _, sent in stage.reads.ended] == [None] * 3

    @pytest.mark.parametrize("target", ["/small", "/large", "/file"])
    async def test_a_client_that_has_closed_its_half_gets_its_answer(self, stage: Stage, target: str) -> None:
        """FIN right behind the request, as `nc -N` sends it."""
        client = await stage.established()
        await client.ask(get(target))
        client.sock.shutdown(socket.SHUT_WR)

        _, body = await client.response()

        assert body == {"/small": b"small", "/large": stage.reads.large, "/file": CONTENT}[target]
        assert await client.end() == b""

    @pytest.mark.parametrize("phase", ["connected", "half a CONNECT", "CONNECT", "half a hello", "hello"])
    @pytest.mark.parametrize("reset", [False, True])
    async def test_a_client_may_leave_at_any_time(
        self, stage: Stage, phase: str, reset: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Before there is TLS; the stage sees to it that nothing stays."""
        client = await stage.client()
        match phase:
            case "half a CONNECT":
                await client.send(CONNECT[:20])
            case "CONNECT":
                await client.connect()
            case "half a hello":
                await client.connect()
                await client.send(client.tls.step()[:100])
            case "hello":
                await client.connect()
                await client.send(client.tls.step())
            case _:
                pass
        await asyncio.sleep(0.002)
        if reset:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.sock.close()
        await until(lambda: stage.last.is_lost)

        assert stage.last._timer.cancelled()
        assert complaints(caplog) == []

    @pytest.mark.parametrize("phase", ["idle", "half a request", "sending", "not reading"])
    @pytest.mark.parametrize("reset", [False, True])
    async def test_a_client_may_leave_with_tls(
        self, stage: Stage, phase: str, reset: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Behind the handshake."""
        client = await stage.established()
        match phase:
            case "half a request":
                await client.ask(get("/small")[:20])
            case "sending":
                await client.ask(get("/file"))
                await client.recv()
            case "not reading":
                await client.ask(*[get("/large")] * 3)
                await until(lambda: stage.last.unsent_bytes > 0)
            case _:
                pass
        if reset:
            client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        client.sock.close()
        await until(lambda: stage.last.is_lost)

        assert stage.last._timer.cancelled()
        assert complaints(caplog) == []


class TestTime:
    @pytest.mark.parametrize(
        "sent", [b"", CONNECT[:20], CONNECT, CONNECT + b"\x16\x03", CONNECT + b"\x16\x03\x01\x02\x00\x01"]
    )
    async def test_a_head_and_a_handshake_have_their_time(self, stage: Stage, sent: bytes) -> None:
        """Whatever is missing, the connection ends."""
        stage.limit(head_timeout_s=5 * SOON_S)
        client = await stage.client()
        with contextlib.suppress(OSError):
            await client.send(sent)

        assert await client.recv() in (b"", CONNECT_ANSWER)
        assert await client.recv() == b""

    async def test_dripping_does_not_help(self, stage: Stage) -> None:
        """The time is the head's, not a byte's."""
        stage.limit(head_timeout_s=20 * SOON_S)
        client = await stage.established()
        with contextlib.suppress(OSError):
            while not stage.last.is_lost:
                await client.ask(b"G")
                await asyncio.sleep(SOON_S / 10)

        assert stage.reads.asked == []

    @pytest.mark.parametrize("early", [b"", get("/small")[:9]])
    async def test_the_first_request_has_a_heads_time(self, stage: Stage, early: bytes) -> None:
        """From the end of the handshake on."""
        stage.limit(head_timeout_s=20 * SOON_S)
        client = await stage.established()
        if early:
            await client.ask(early)

        assert await client.end() == b""

    async def test_an_idle_client_is_let_go(self, stage: Stage) -> None:
        """After an answer the next time limit counts."""
        stage.limit(keepalive_timeout_s=SOON_S)
        client = await stage.established()
        await client.ask(get("/small"))
        await client.body()

        assert await client.end() == b""

    async def test_an_idle_client_is_let_go_after_a_file(self, stage: Stage) -> None:
        """Sending it had no time limit but the sender's."""
        stage.limit(keepalive_timeout_s=SOON_S)
        client = await stage.established()
        await client.ask(get("/file"))
        await asyncio.sleep(2 * SOON_S)
        assert await client.body() == CONTENT

        assert await client.end() == b""

    async def test_half_a_request_has_a_heads_time_however_long_a_client_may_idle(self, stage: Stage) -> None:
        """The shorter limit holds though the longer one's timer runs already."""
        client = await stage.established()
        await client.ask(get("/small"))
        await client.body()
        stage.last._reception = stage.reception.__class__(
            stage.reads, stage.reception.tls_context, stage.sender, SOON_S, 3600, 3600
        )
        await client.ask(get("/small")[:20])

        assert await client.end() == b""
        assert stage.reads.targets == ["/small"]

    @pytest.mark.parametrize("ending", ["", "Connection: close"])
    async def test_what_nobody_takes_is_dropped_in_the_end(self, stage: Stage, ending: str) -> None:
        """A client that asks and does not read would otherwise keep its answer, and its connection, for ever."""
        stage.limit(keepalive_timeout_s=SOON_S, send_timeout_s=SOON_S)
        client = await stage.established()
        await client.ask(get("/large", *([ending] if ending else [])))

        await until(lambda: stage.last.is_lost)

        await client.end()
        assert stage.reads.targets == ["/large"]

    async def test_what_is_taken_slowly_is_not_dropped(self, stage: Stage) -> None:
        """As long as something is taken within the time for it."""
        stage.limit(keepalive_timeout_s=0.0, send_timeout_s=100 * SOON_S)
        client = await stage.established()
        await client.ask(get("/large"))
        received = b""
        while len(received) < 900_000:
            await asyncio.sleep(SOON_S)
            received += client.tls.decrypt(await client.recv())
        received += await client.end()

        assert received.partition(b"\r\n\r\n")[2] == stage.reads.large


class TestNotReading:
    async def test_answers_that_are_not_read_stop_the_answering(self, stage: Stage) -> None:
        """One answer waits, not hundreds; when the client reads, all come."""
        client = await stage.established()
        await client.ask(*[get("/large")] * 100)
        await until(lambda: stage.last.unsent_bytes > 0)
        await asyncio.sleep(SOON_S)
        assert len(stage.reads.asked) <= 2
        assert stage.last.unsent_bytes < 2_500_000

        for _ in range(100):
            assert await client.body() == stage.reads.large

    async def test_nothing_is_read_from_a_client_that_does_not_read(self, stage: Stage) -> None:
        """Its flood waits in its own machine."""
        client = await stage.established()
        await client.ask(get("/large"), get("/large"))
        await until(lambda: stage.last.unsent_bytes > 0)
        received_bytes = stage.last.received_bytes
        flood = asyncio.ensure_future(client.ask(*[get("/small")] * 20_000))
        await asyncio.sleep(SOON_S)

        assert stage.last.received_bytes == received_bytes
        for _ in range(2):
            assert await client.body() == stage.reads.large
        for _ in range(20_000):
            assert await client.body() == b"small"
        await flood

    async def test_a_file_behind_an_answer_that_is_not_read_waits(self, stage: Stage) -> None:
        """And is sent whole, in order."""
        client = await stage.established()
        await client.ask(get("/large"), get("/file"), get("/small"))
        await until(lambda: stage.last.unsent_bytes > 0)
        await asyncio.sleep(SOON_S)
        assert stage.reads.targets == ["/large"]

        assert [await client.body() for _ in range(3)] == [stage.reads.large, CONTENT, b"small"]

    async def test_nothing_is_handed_over_before_the_answers_are_taken(self, stage: Stage) -> None:
        """The stream that goes on would never hear that writing and reading are paused: the connection would hang."""
        client = await stage.established()
        await client.ask(get("/large"), get("/miss"))
        await until(lambda: stage.last.unsent_bytes > 0)
        await asyncio.sleep(SOON_S)
        assert stage.taken == []

        assert await client.body() == stage.reads.large
        await until(lambda: bool(stage.taken))
        (taken,) = stage.taken
        assert taken.handed_over.early == get("/miss")
        assert taken.transport.is_reading()
        await client.send(b"more")
        assert await taken.reader.read(100) == b"more"
        taken.transport.write(b"x" * 1_000_000)
        received_bytes = 0
        while received_bytes < 1_000_000:
            received_bytes += len(await client.recv())

    async def test_nothing_is_handed_over_before_the_last_of_tls_is_taken(self, stage: Stage) -> None:
        """What TLS itself has to send, an answer to a key update say, may be what fills the transport."""
        client = await stage.established()
        stage.last._transport.set_write_buffer_limits(high=10_000_000)
        await client.ask(get("/large"))
        await until(lambda: stage.last.unsent_bytes > 0)
        await asyncio.sleep(SOON_S)
        stage.last._transport.set_write_buffer_limits(high=stage.last.unsent_bytes + 10)
        assert stage.last._tls is not None
        stage.last._tls.sendall(b"tail")
        await client.ask(get("/miss"))
        await until(lambda: stage.reads.targets == ["/large", "/miss"])
        await asyncio.sleep(SOON_S)
        assert stage.taken == []

        assert await client.body() == stage.reads.large
        await until(lambda: bool(stage.taken))
        assert stage.taken[0].transport.is_reading()
        assert stage.taken[0].handed_over.early == get("/miss")


async def answers(client: Client) -> None:
    """Be answered twice, a file as well, and leave."""
    await client.ask(get("/small"), get("/part"))
    await client.body()
    await client.body()
    client.sock.close()


async def leave_in_a_file(client: Client) -> None:
    """Leave in the middle of a body."""
    await client.ask(get("/file"))
    await client.recv()
    client.sock.close()


async def ask_for_the_end(client: Client) -> None:
    """Let the server close."""
    await client.ask(get("/small", "Connection: close"))
    await client.end()


async def ask_for_more(client: Client) -> None:
    """Have the connection handed over, and leave."""
    await client.ask(get("/small"), get("/miss"))
    await client.body()
    client.sock.close()


@pytest.mark.parametrize("use", [answers, leave_in_a_file, ask_for_the_end, ask_for_more])
async def test_a_connection_that_has_ended_is_freed_at_once(
    stage: Stage, use: Callable[[Client], Awaitable[None]]
) -> None:
    """Not when the collector comes round: it knows nothing of the memory that OpenSSL holds."""
    gc.disable()
    try:
        client = await stage.established()
        ended = weakref.ref(stage.last)
        await use(client)
        await until(lambda: stage.last.is_lost or bool(stage.taken))
        await asyncio.sleep(SOON_S)
        stage.connections.clear()
        stage.reads.asked.clear()

        assert ended() is None
    finally:
        gc.enable()
