"""A script for the plain mitmdump: the upstream's names end at its addresses, in place of a DNS of the run.

It replaces the resolver and has no hook, so mitmdump does with every request just what it does without it.
"""

import os
import socket
from typing import Any

_MAPPINGS = dict(mapping.split("=") for mapping in os.environ["BENCH_MAPPINGS"].split())
_resolve = socket.getaddrinfo


def _resolve_mapped(host: Any, *arguments: Any, **options: Any) -> Any:
    name = host.decode() if isinstance(host, bytes) else host
    address = _MAPPINGS.get(name)
    return _resolve(host if address is None else address.rpartition(":")[0], *arguments, **options)


socket.getaddrinfo = _resolve_mapped
