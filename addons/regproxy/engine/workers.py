"""How one process becomes several: it hands itself over to the supervisor, which starts it again as each worker.

Whatever started it (`mitmdump -s`, entrypoint.sh, a container) has one process still, with the same number and the same
arguments; so all ways of starting know `WORKERS`.
"""

import functools
import math
import os
import signal
import sys
from pathlib import Path
from typing import Never

from regproxy.engine.crew import PLACE_VARIABLE, Place

_RUN = (
    "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); "
    "runpy.run_module('regproxy.engine.supervisor', run_name='__main__', alter_sys=True)"
)
_QUOTA = Path("/sys/fs/cgroup/cpu.max")


@functools.cache  # mitmproxy loads a script again when its file changes
def own_place() -> Place | None:
    """Return this worker's place, None in a process that works alone. What it inherits goes to no child of its own."""
    place = Place.of_environment(os.environ)
    if place is not None:
        del os.environ[PLACE_VARIABLE]
        for fd in (place.channel_fd, place.board_fd, *place.listening_fds):
            os.set_inheritable(fd, False)
    return place


def usable_cores(quota: Path = _QUOTA) -> int:
    """Return how many cores this process may use: those it is bound to, fewer if its control group has a quota."""
    bound = len(os.sched_getaffinity(0))
    try:
        most, period = quota.read_text().split()
        return bound if most == "max" else max(1, min(bound, math.ceil(int(most) / int(period))))
    except (OSError, ValueError):
        return bound


def become_supervisor(workers: int, host: str, port: int, drain_s: float) -> Never:
    """Replace this program by the supervisor of so many of it. Raises OSError."""
    # Without a handler a signal would end the new program, or be lost if it is process 1, until it has set its own.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    command = [sys.executable, *sys.orig_argv[1:]]
    addons = str(Path(__file__).parents[2])
    # As entrypoint.sh starts Python: isolated, no variable of its environment brings modules in.
    options = f"-{'I' if sys.flags.isolated else 'P'}{'B' if sys.dont_write_bytecode else ''}"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(  # noqa: S606 - the same interpreter, with our own arguments
        sys.executable,
        [sys.executable, options, "-c", _RUN, addons, str(workers), host, str(port), str(drain_s), *command],
    )
