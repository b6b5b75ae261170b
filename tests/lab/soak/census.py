"""An addon of the soak alone: on SIGUSR1 the proxy writes down its tasks and objects, which nobody sees from outside.

It is loaded beside the proxy's own addons, into the process that is tested. Nothing runs until the signal comes.
"""

import asyncio
import gc
import json
import os
import signal
from collections import Counter
from pathlib import Path

FILE_VARIABLE = "SOAK_CENSUS_FILE"


class Census:
    """Counts what a leak would add to."""

    def running(self) -> None:
        """Wait for the signal."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, self.take)

    def take(self) -> None:
        """Write the file, by rename, so that whoever waits for it finds it whole."""
        gc.collect()
        tasks = Counter(getattr(task.get_coro(), "__qualname__", "?") for task in asyncio.all_tasks())
        target = Path(os.environ[FILE_VARIABLE])
        incoming = target.with_suffix(".incoming")
        incoming.write_text(json.dumps({"tasks": tasks, "objects": len(gc.get_objects())}))
        incoming.replace(target)


addons = [Census()]
