"""Connections of mirror clients: no CONNECT, no TLS, the same warm answers; mitmproxy gets everything else."""

import asyncio

import pytest

from unit.engine.warm_stage import CONTENT, SOON_S, Client, Stage, get, until


async def response(client: Client) -> bytes:
    """Return the body of the next answer, whose length is in its head."""
    received = b""
    while b"\r\n\r\n" not in received:
        piece = await client.recv()
        assert piece, received
        received += piece
    head, _, body = received.partition(b"\r\n\r\n")
    length_bytes = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
    while len(body) < length_bytes:
        body += await client.recv()
    assert len(body) == length_bytes
    return body


async def test_answers_one_after_the_other(stage: Stage) -> None:
    """From memory and from files, as long as the client likes; whoever answers is told that no CONNECT came."""
    client = await stage.client()
    for target, expected in (
        ("/v2/small", b"small"),
        ("/v2/file", CONTENT),
        ("/v2/part", CONTENT[1000:300_000]),
        ("/v2/large", stage.reads.large),
        ("/v2/small", b"small"),
    ):
        await client.send(get(target))
        assert await response(client) == expected
    assert {(asked.host, asked.port) for asked in stage.reads.asked} == {("", 0)}
    assert all(sent.error is None for _, sent in stage.reads.ended)
    assert len(stage.reads.ended) == 5
    assert stage.taken == []


async def test_a_head_may_come_in_pieces(stage: Stage) -> None:
    """Once it is clear that a request to a mirror has begun."""
    client = await stage.client()
    request = get("/v2/small")
    for piece in (request[:7], request[7:20], request[20:-1], request[-1:]):
        received_bytes = stage.last.received_bytes + len(piece)
        await client.send(piece)
        await until(lambda limit_bytes=received_bytes: stage.last.received_bytes >= limit_bytes)  # type: ignore[misc]

    assert await response(client) == b"small"


async def test_the_last_request_ends_the_connection(stage: Stage) -> None:
    """`Connection: close` is answered and obeyed."""
    client = await stage.client()
    await client.send(get("/v2/small", "Connection: close"))

    assert await response(client) == b"small"
    assert await client.recv() == b""


@pytest.mark.parametrize(
    "request_bytes",
    [
        get("/v2/miss"),
        get("/v2/error"),
        get("/v2/small", method="PUT"),
        get("/v2/small", "Content-Length: 0"),
        get("/small"),
        b"GET http://quay.io/v2/small HTTP/1.1\r\nHost: quay.io\r\n\r\n",
        b"CONNECT quay.io:443 HTTP/1.1\r\nHost: quay.io\r\nProxy-Authorization: Basic eDp5\r\n\r\n",
    ],
)
@pytest.mark.parametrize("warm_first", [False, True])
async def test_anything_else_is_handed_over_whole(stage: Stage, request_bytes: bytes, *, warm_first: bool) -> None:
    """With what has been read, and as if nothing had been before it."""
    client = await stage.client()
    if warm_first:
        await client.send(get("/v2/small"))
        assert await response(client) == b"small"
        if request_bytes == get("/small"):
            return  # this stage answers it; the stack's own decides by the path

    await client.send(request_bytes)

    await until(lambda: bool(stage.taken))
    (taken,) = stage.taken
    assert (taken.handed_over.authority, taken.handed_over.tls) == (None, None)
    assert taken.handed_over.early == request_bytes


async def test_a_client_that_does_not_read_is_not_answered_further(stage: Stage) -> None:
    """Its answers would fill the memory."""
    client = await stage.client()
    await client.send(get("/v2/large") * 40)
    await until(lambda: bool(stage.reads.asked))
    await asyncio.sleep(SOON_S)
    assert len(stage.reads.asked) < 5
    assert stage.last.unsent_bytes > 0
