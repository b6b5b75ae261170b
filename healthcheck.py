"""Asks the proxy of this container whether it can serve pulls: exit code 0 if it says so, 1 if not.

It starts every 30 s, so it loads as little as it can: the settings room only where a YAML file may name the port.
"""

import os
import re
import socket
import sys
from collections.abc import Mapping
from pathlib import Path

ANSWER_LIMIT_S = 3.0
"""Shorter than the time that HEALTHCHECK allows, so that the reason is told."""

EVERY_ADDRESS = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - asked, not listened on
"""Where a proxy that listens on all addresses is asked."""


PLAIN_HOST = re.compile(r"[0-9A-Za-z.:-]*")
"""What needs no reading: no quotes, brackets or blanks."""


def main(environ: Mapping[str, str]) -> int:
    """Return the exit code; the reason of a failure goes to standard error, where the container engine keeps it."""
    try:
        host, port = listening_address(environ)
        status = status_line(host, port)
    except (OSError, ValueError) as error:
        sys.stderr.write(f"no answer: {error}\n")
        return 1
    if status.split()[1:2] == ["200"]:
        return 0
    sys.stderr.write(f"not ready: {status}\n")
    return 1


def listening_address(environ: Mapping[str, str]) -> tuple[str, int]:
    """Return host and port of the proxy with these settings. Raises ValueError if they cannot be read."""
    host, port = environ.get("LISTEN_HOST", ""), environ.get("LISTEN_PORT", "3128")
    if environ.get("CONFIG_FILE") or not (port.isdecimal() and PLAIN_HOST.fullmatch(host)):
        sys.path.insert(0, str(Path(__file__).parent / "addons"))
        from regproxy.settings import load_settings  # noqa: PLC0415 - 70 ms that only these cases cost

        settings = load_settings(environ)
        host, port = settings.listen_host, str(settings.listen_port)
    return EVERY_ADDRESS.get(host, host), int(port)


def status_line(host: str, port: int) -> str:
    """Return the first line of the answer to `/readyz`. Raises OSError if there is none in time."""
    with socket.create_connection((host, port), timeout=ANSWER_LIMIT_S) as connection:
        connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return connection.recv(200).partition(b"\r\n")[0].decode("ascii", "replace")


if __name__ == "__main__":
    sys.exit(main(os.environ))
