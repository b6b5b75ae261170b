"""Many pulls of one image, for the memory row: a connection each, then `/v2/`, the manifest and every layer.

curl and skopeo would need minutes to start a thousand times; this reads the same bytes from a few threads.
"""

import socket
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from bench.clients import ClientError
from bench.peers import Target
from bench.raw_client import Resource, length_of, open_connection, read_head, status_of

_CONCURRENT = 4
_PIECE_BYTES = 1 << 16


def pull_often(target: Target, paths: Sequence[str], *, times: int) -> None:
    """Get all paths, in order, `times` times; ClientError when one answer is not a complete 200."""
    resource = Resource(target.url("/v2/"), target.ca_file, str(target.proxy) if target.proxy else None)
    context = resource.tls_context()

    def pull(_number: int) -> None:
        with open_connection(resource, context) as connection:
            for path in ("/v2/", *paths):
                _get(connection, resource, path)

    with ThreadPoolExecutor(_CONCURRENT) as pool:
        for _ in pool.map(pull, range(times)):
            pass


def _get(connection: socket.socket, resource: Resource, path: str) -> None:
    connection.sendall(resource.get(path))
    head, rest = read_head(connection)
    if status_of(head) != 200:
        raise ClientError(f"{path} was answered {head[:80]!r}")
    left_bytes = length_of(head) - len(rest)
    while left_bytes > 0:
        piece = connection.recv(min(left_bytes, _PIECE_BYTES))
        if not piece:
            raise ClientError(f"{path}: the connection ended {left_bytes} bytes early")
        left_bytes -= len(piece)
