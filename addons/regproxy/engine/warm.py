"""Reads that are answered from memory and files alone: what the engine asks of the stack.

They go without mitmproxy's hooks and flows. A hook is a task and a walk over all addons, a flow is a dozen objects;
together they were most of a small request.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from regproxy.engine.bodies import FileBody, Sent
from regproxy.engine.request_head import RequestHead

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request, and to which registry and from whom it came."""

    head: RequestHead
    host: str
    """Empty for a request to the proxy itself: then its target names the registry."""
    port: int
    client_ip: str
    began_s: float
    """When its head was complete, in seconds since the epoch."""


@dataclass(frozen=True, slots=True)
class WarmAnswer:
    """An answer that is at hand. Its fields describe the content completely."""

    status: int
    fields: Mapping[str, str]
    content: bytes | FileBody
    """What follows the head; nothing for HEAD."""
    receipt: object
    """What `WarmReads.sent` wants to have back."""


class WarmReads(Protocol):
    """What is answered here."""

    def intercepts(self, host: str, port: int) -> bool:
        """Whether a CONNECT to this host ends in our TLS."""
        ...

    def answer(self, asked: Asked) -> WarmAnswer | None:
        """Return the answer to a request; None when it takes more than memory and files, or is not to be answered."""
        ...

    def sent(self, asked: Asked, answer: WarmAnswer, sent: Sent) -> None:
        """Take note of how an answer ended."""
        ...


def serialised(answer: WarmAnswer) -> bytes:
    """Return the head of an answer."""
    lines = [f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}"]
    lines += [f"{field}: {value}" for field, value in answer.fields.items()]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


def answer_or_none(warm: WarmReads, asked: Asked) -> WarmAnswer | None:
    """Ask for the answer; an error in the answering becomes None: the long way meets it again, and tells the client."""
    try:
        return warm.answer(asked)
    except Exception:
        logger.exception("%s to %s could not be answered at once", asked.head.method, asked.host)
        return None
