"""One gRPC call over a unix socket, and the little of protobuf that it needs: crictl is no package of Debian's.

The protocol is "gRPC over HTTP/2": a message has five bytes before it, the status is in the trailers. A field of a
message is its number and wire type 2, a length, and the bytes.
"""

import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path

import h2.config
import h2.connection
import h2.events

_LIMIT_S = 60.0
_STREAM = 1
_OF_BYTES = 2
"""Protobuf's wire type of texts and messages."""


@dataclass(slots=True)
class Answer:
    """What a call came to: status 0 is success."""

    status: int = -1
    reason: str = ""
    body: bytearray = field(default_factory=bytearray)

    def text(self) -> str:
        """Return field 1 of the message, a short text; empty when there is none."""
        message = bytes(self.body[5:])
        if message[:1] != bytes([1 << 3 | _OF_BYTES]):
            return ""
        return message[2 : 2 + message[1]].decode()


def text_field(number: int, content: str | bytes) -> bytes:
    """Return a field of a message: a text, or a message within it, below 16 KiB."""
    encoded = content.encode() if isinstance(content, str) else content
    size = len(encoded)
    length = bytes([size]) if size < 0x80 else bytes([size & 0x7F | 0x80, size >> 7])
    return bytes([number << 3 | _OF_BYTES]) + length + encoded


def call(unix_socket: Path, method: str, message: bytes) -> Answer:
    """Call `/package.Service/Method`; TimeoutError when nothing comes for a minute, OSError when nobody listens."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(_LIMIT_S)
        stream.connect(str(unix_socket))
        connection.initiate_connection()
        fields = {":method": "POST", ":scheme": "http", ":path": method, ":authority": "localhost"}
        fields |= {"content-type": "application/grpc", "te": "trailers"}
        connection.send_headers(_STREAM, list(fields.items()))
        connection.send_data(_STREAM, struct.pack(">BI", 0, len(message)) + message, end_stream=True)
        answer = Answer()
        while answer.status < 0:
            stream.sendall(connection.data_to_send())
            received = stream.recv(65536)
            if not received:
                raise ConnectionError(f"{method}: the connection was closed")
            for event in connection.receive_data(received):
                _take(answer, event)
        return answer


def _take(answer: Answer, event: h2.events.Event) -> None:
    match event:
        case h2.events.DataReceived(data=data):
            answer.body += data or b""
        case h2.events.ResponseReceived(headers=headers) | h2.events.TrailersReceived(headers=headers):
            fields = {str(name): str(text) for name, text in headers or []}
            answer.status = int(fields.get("grpc-status", answer.status))
            answer.reason = fields.get("grpc-message", answer.reason)
        case h2.events.StreamReset():
            answer.status, answer.reason = 13, "the call was reset"
        case _:
            pass
