"""Runs a Python program as process 1 of a container: `python3 process_one.py PROGRAM ARGUMENT...`.

The kernel drops a signal for process 1 that has no handler. mitmdump sets its own after a second of imports; until then
this one ends the process, or `stop` would wait for its whole grace period.
"""

import os
import runpy
import signal
import sys


def main() -> None:
    """Become the program, with its own arguments."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: os._exit(0))
    del sys.argv[0]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
