"""The bodies of answers that must fit into memory."""

import aiohttp

from regproxy.origin.errors import AnswerTooLarge


def is_encoded(response: aiohttp.ClientResponse) -> bool:
    """Whether a body must be decoded, though that was not asked for.

    It matches no digest, and may be a thousand times as large as what has come: nothing is decoded here.
    """
    return response.headers.get("Content-Encoding", "identity").strip().lower() != "identity"


async def read_body(response: aiohttp.ClientResponse, limit_bytes: int) -> bytes:
    """Read a body of at most `limit_bytes`; of a refusal that is encoded, nothing. Raises `AnswerTooLarge`."""
    if is_encoded(response):
        return b""
    if response.method != "HEAD" and (response.content_length or 0) > limit_bytes:
        raise AnswerTooLarge(f"{response.url.host} sends more than {limit_bytes} bytes")
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit_bytes:
            raise AnswerTooLarge(f"{response.url.host} sends more than {limit_bytes} bytes")
    return bytes(body)
