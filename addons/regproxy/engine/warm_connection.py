"""A client's connection for as long as everything it asks for is at hand: CONNECT, TLS, and answers from the cache.

dockerd opens a connection for every request, so what a connection costs is what a warm pull costs. mitmproxy's layers,
hooks and flow objects take about 2 ms for one; this takes a third of it. It does the one thing that is frequent and
hands everything else over to mitmproxy, whole: another CONNECT, a request that is not answered from the cache, a head
that is not plain (`request_head`). What was handed over stays there until the connection ends.

A mirror's client sends no CONNECT and speaks no TLS: its connection begins with the first request.
"""

import asyncio
import datetime as dt
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, cast

from mitmproxy.net.tls import starts_like_tls_record
from OpenSSL import SSL

from regproxy.engine.bodies import FileBody, Sent
from regproxy.engine.client_tls import reason_of, server_name
from regproxy.engine.request_head import END_OF_HEAD, read_plain_connect, read_plain_head
from regproxy.engine.warm import Asked, WarmAnswer, WarmReads, answer_or_none, serialised
from regproxy.oci.names import names

logger = logging.getLogger(__name__)

CONNECT_START = b"CONNECT "
MIRROR_STARTS = (b"GET /v2", b"HEAD /v2")
CONNECT_ANSWER = b"HTTP/1.1 200 Connection established\r\n\r\n"

HEAD_LIMIT_BYTES = 64 * 1024
"""What is kept of a head that has not ended; more is mitmproxy's to judge. Some tokens take 100 kB."""

_READ_BYTES = 16 * 1024
"""The most that one TLS record holds (RFC 8446 section 5.1)."""


class FileSender(Protocol):
    """Moves the bytes of files."""

    async def send(self, transport: asyncio.Transport, tls: SSL.Connection | None, body: FileBody) -> Sent:
        """Send a body, after what has been encrypted already. Does not raise."""
        ...


@dataclass(frozen=True, slots=True)
class HandedOver:
    """Where mitmproxy goes on."""

    authority: tuple[str, int] | None
    """Host and port of the CONNECT that has been answered; None when none has been."""
    tls: SSL.Connection | None
    """TLS with the client, when it is established."""
    early: bytes
    """What the client has sent and nobody has taken in: plaintext if there is TLS."""


@dataclass(frozen=True, slots=True)
class Reception:
    """What every connection needs."""

    warm: WarmReads
    tls_context: Callable[[str, dt.datetime, str], SSL.Context]
    """Returns the TLS context for a host; it is also told the client's address."""
    sender: FileSender
    head_timeout_s: float
    """How long a head, or a handshake, may take to arrive."""
    keepalive_timeout_s: float
    """How long a connection may stay without a request."""
    send_timeout_s: float
    """How long a client may take no byte of what waits for it."""


_received = bytearray(64 * 1024)
"""What the loop reads into, for one connection after the other. A `Protocol` gets a new 256 KiB at every read, cut to
what came: with 250 connections that left 25 MiB of holes."""


class WarmConnection(asyncio.BufferedProtocol):
    """One client's connection, from its first byte."""

    _transport: asyncio.Transport
    # A mirror's client has neither.
    _tls: SSL.Connection | None = None
    _authority: tuple[str, int] = ("", 0)

    def __init__(self, reception: Reception, hand_over: Callable[[asyncio.Transport, HandedOver], None]) -> None:
        self._reception = reception
        self._on_hand_over = hand_over
        self._receive: Callable[[bytes], None] = self._read_connect
        self._early = b""
        self._client_closed = False
        self._writing_paused = False
        self._unsent_bytes = 0
        self._sending: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._deadline_s = self._loop.time() + reception.head_timeout_s
        self._timer = self._loop.call_at(self._deadline_s, self._ring)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; a body under way finds the socket closed."""
        del exc
        self._let_go()

    def get_buffer(self, sizehint: int) -> bytearray:
        """Return where to read to."""
        del sizehint
        return _received

    def buffer_updated(self, nbytes: int) -> None:
        """Take in what the client sent."""
        self._receive(bytes(memoryview(_received)[:nbytes]))

    def pause_writing(self) -> None:
        """Take no further request while the client does not read the answers to the last ones."""
        self._writing_paused = True
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """Go on."""
        self._writing_paused = False
        self._transport.resume_reading()
        self._receive(b"")

    def _read_connect(self, data: bytes) -> None:
        self._early += data
        if self._early.startswith(MIRROR_STARTS):
            self._receive = self._read_requests
            self._answer_requests()
            return
        head, end, rest = self._early.partition(END_OF_HEAD)
        if not end and len(head) <= HEAD_LIMIT_BYTES and CONNECT_START.startswith(head[: len(CONNECT_START)]):
            return
        authority = read_plain_connect(head) if end else None
        if authority is None or not self._reception.warm.intercepts(*authority, self._client_ip):
            self._hand_over(None)
            return
        self._authority, self._early = authority, rest
        self._transport.write(CONNECT_ANSWER)
        self._receive = self._read_first_bytes
        if rest:
            self._read_first_bytes(b"")

    def _read_first_bytes(self, data: bytes) -> None:
        """Tell TLS from plain HTTP: a registry without TLS may be reached through CONNECT, too."""
        self._early += data
        if len(self._early) < 3:
            return
        if not starts_like_tls_record(self._early):
            self._hand_over(self._authority)
            return
        now = dt.datetime.now(dt.UTC)
        self._tls = SSL.Connection(self._reception.tls_context(self._authority[0], now, self._client_ip))
        self._tls.set_accept_state()
        self._receive = self._shake_hands
        early, self._early = self._early, b""
        self._shake_hands(early)

    def _shake_hands(self, data: bytes) -> None:
        assert self._tls is not None
        if data:
            self._tls.bio_write(data)
        try:
            self._tls.do_handshake()
        except SSL.WantReadError:
            self._flush()
            return
        except SSL.Error as error:
            self._tell_failed_handshake(error)
            self._finish()
            return
        if not names(server_name(self._tls), self._authority[0]):
            self._hand_requests_over()
            return
        self._receive = self._read_requests
        self._wait_until(self._loop.time() + self._reception.head_timeout_s)
        self._read_requests(b"")

    def _read_requests(self, data: bytes) -> None:
        try:
            self._take_in(data)
        except SSL.Error as error:
            logger.debug("%s: %s", self._client_ip, reason_of(error))
            self._finish()
            return
        self._answer_requests()

    def _take_in(self, data: bytes) -> None:
        if self._tls is None:
            self._early += data
            return
        if data:
            self._tls.bio_write(data)
        try:
            while True:
                self._early += self._tls.recv(_READ_BYTES)
        except SSL.WantReadError:
            pass
        except SSL.ZeroReturnError:
            self._client_closed = True

    def _answer_requests(self) -> None:
        """Answer what has arrived completely, one after the other, as long as the client takes the answers."""
        while not self._writing_paused:
            head, end, rest = self._early.partition(END_OF_HEAD)
            if not end and len(self._early) <= HEAD_LIMIT_BYTES:
                self._wait_for_more()
                return
            asked = self._asked(head) if end else None
            answer = None if asked is None else answer_or_none(self._reception.warm, asked)
            if asked is None or answer is None:
                self._hand_requests_over()
                return
            self._early = rest
            if isinstance(answer.content, FileBody):
                self._start_sending(asked, answer, answer.content)
                return
            self._put(serialised(answer) + answer.content)
            self._reception.warm.sent(asked, answer, Sent(len(answer.content), None))
            if asked.head.is_last:
                self._close()
                return
            self._flush()  # each by itself: it is the transport that says when there is enough
            self._wait_until(self._loop.time() + self._reception.keepalive_timeout_s)

    def _wait_for_more(self) -> None:
        """Send what there is; the rest of a head has to come soon."""
        if self._client_closed:
            self._close()
            return
        self._flush()
        if self._early:
            self._wait_until(min(self._deadline_s, self._loop.time() + self._reception.head_timeout_s))

    def _asked(self, head: bytes) -> Asked | None:
        read = read_plain_head(head)
        return None if read is None else Asked(read, *self._authority, self._client_ip, time.time())

    def _start_sending(self, asked: Asked, answer: WarmAnswer, body: FileBody) -> None:
        """Let the sender have the socket and TLS; the head goes first."""
        self._receive = _ignore
        self._transport.pause_reading()
        self._timer.cancel()
        self._put(serialised(answer))
        self._sending = self._loop.create_task(self._send(asked, answer, body))

    async def _send(self, asked: Asked, answer: WarmAnswer, body: FileBody) -> None:
        try:
            sent = await self._reception.sender.send(self._transport, self._tls, body)
        finally:
            body.close()
        self._reception.warm.sent(asked, answer, sent)
        if sent.error is not None:
            self._transport.abort()  # a body that is not complete must not look so (RFC 9112 section 8)
        elif self._transport.is_closing():
            return  # the client has gone: nobody is to be answered, and mitmproxy would wait for its end in vain
        elif asked.head.is_last:
            self._close()
        else:
            self._receive = self._read_requests
            self._transport.resume_reading()
            self._wait_until(self._loop.time() + self._reception.keepalive_timeout_s)
            self._read_requests(b"")

    def _hand_requests_over(self) -> None:
        """Hand over, once the client has taken enough: mitmproxy would never hear that writing is paused."""
        self._flush()
        if not self._writing_paused:
            self._hand_over(None if self._tls is None else self._authority, self._tls)

    def _hand_over(self, authority: tuple[str, int] | None, tls: SSL.Connection | None = None) -> None:
        self._let_go()
        self._on_hand_over(self._transport, HandedOver(authority, tls, self._early))

    def _close(self) -> None:
        """End as TLS wants it."""
        if self._tls is not None:
            self._tls.shutdown()
        self._finish()

    def _finish(self) -> None:
        """Send what is encrypted, and close; what the client still sends is not looked at."""
        self._receive = _ignore
        self._flush()
        self._transport.close()
        self._wait_until(self._loop.time() + self._reception.send_timeout_s)

    def _let_go(self) -> None:
        """Leave nothing that holds this object: TLS takes memory that Python's collector knows nothing of."""
        self._timer.cancel()
        self._receive = _ignore

    def _put(self, data: bytes) -> None:
        """Send, or encrypt for the next `_flush`."""
        if self._tls is None:
            self._transport.write(data)
        else:
            self._tls.sendall(data)

    def _flush(self) -> None:
        """Send what is encrypted."""
        try:
            while self._tls is not None:
                self._transport.write(self._tls.bio_read(4 * _READ_BYTES))
        except SSL.WantReadError:
            pass

    def _wait_until(self, deadline_s: float) -> None:
        """Close the connection then. The timer is left to ring too early, which costs less than a new one."""
        self._deadline_s, self._unsent_bytes = deadline_s, 0
        if self._timer.cancelled() or deadline_s < self._timer.when():
            self._timer.cancel()
            self._timer = self._loop.call_at(deadline_s, self._ring)

    def _ring(self) -> None:
        """Close when the time is up; what the client takes slowly may go on, what it does not take is dropped."""
        now_s, unsent_bytes = self._loop.time(), self._transport.get_write_buffer_size()
        if now_s >= self._deadline_s:
            if not unsent_bytes:
                self._transport.close()
                return
            if unsent_bytes == self._unsent_bytes:
                self._transport.abort()
                return
            self._unsent_bytes = unsent_bytes
            self._deadline_s = now_s + self._reception.send_timeout_s
        self._timer = self._loop.call_at(self._deadline_s, self._ring)

    def _tell_failed_handshake(self, error: SSL.Error) -> None:
        logger.warning(
            "%s: TLS for %s failed: %s; a client that does not trust the proxy's CA says so like this (see /ca.crt)",
            self._client_ip,
            self._authority[0],
            reason_of(error),
        )

    @property
    def _client_ip(self) -> str:
        return str((self._transport.get_extra_info("peername") or ("",))[0])


def _ignore(_data: bytes) -> None:
    """Take nothing in."""
