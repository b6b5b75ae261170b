"""The access log of a proxy, as those read it who have it in a file."""

import json

from lab.proxy import Proxy
from lab.wait import wait_until


def access_log(proxy: Proxy, path: str | None = None, least: int = 0) -> list[dict[str, str]]:
    """Return the lines, oldest first, those for a path if one is given; AssertionError when there are not so many.

    A line is written when its answer has ended, hence a moment after the client has it: `least` waits for that.
    """
    wait_until(lambda: len(_lines(proxy, path)) >= least, f"{least} lines for {path or 'all paths'}")
    return _lines(proxy, path)


def _lines(proxy: Proxy, path: str | None) -> list[dict[str, str]]:
    lines = [json.loads(line) for line in proxy.log.splitlines() if line.startswith('{"access_time"')]
    return [line for line in lines if path in {None, line["uri"]}]
