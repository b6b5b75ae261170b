"""One client that pulls one body and says when its first and its last byte came: `python -m bench.stream_client URL`.

It prints `ready`, waits for a line, connects, and prints one JSON object. The first byte is the body's: an answer that
sends its headers at once and its body later is not early.
"""

import argparse
import json
import sys
import time

from bench.raw_client import Resource, add_arguments, expect_ok, length_of, open_connection, read_head, resource_of

_BUFFER_BYTES = 1 << 18
_STALL_LIMIT_S = 120.0


def pull(resource: Resource) -> dict[str, float]:
    """Return seconds from now to the first and the last byte, and the bytes."""
    context = resource.tls_context()
    started_s = time.monotonic()
    with open_connection(resource, context) as connection:
        connection.settimeout(_STALL_LIMIT_S)
        connection.sendall(resource.get())
        head, rest = read_head(connection)
        expect_ok(head)
        size_bytes = length_of(head)
        received_bytes = len(rest)
        first_byte_s = time.monotonic() - started_s if rest else None
        buffer = memoryview(bytearray(_BUFFER_BYTES))
        while received_bytes < size_bytes:
            count = connection.recv_into(buffer)
            if count == 0:
                raise ConnectionError(f"the body ended after {received_bytes} of {size_bytes} bytes")
            if first_byte_s is None:
                first_byte_s = time.monotonic() - started_s
            received_bytes += count
    last_byte_s = time.monotonic() - started_s
    return {"first_byte_s": first_byte_s or last_byte_s, "last_byte_s": last_byte_s, "size_bytes": received_bytes}


def main() -> None:
    """Wait for the word and pull."""
    parser = argparse.ArgumentParser(description="Pull one body and say when its first and its last byte came.")
    add_arguments(parser)
    resource = resource_of(parser.parse_args())
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    sys.stdout.write(json.dumps(pull(resource)))


if __name__ == "__main__":
    main()
