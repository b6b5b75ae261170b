"""The comparison with the peers: `make bench`.

Starts an upstream registry, our proxy and the peers side by side on loopback, runs every row of the comparison against
each of them in turn, several times, and writes medians and ratios.

- `upstream`  the registry behind everything: static files, one server limited in speed
- `peers`     how each proxy is set up, started and reached
- `clients`   curl, hey and skopeo; `stream_client` and `slow_clients` are clients of our own, programs of their own
- `rows`      what is measured, and the bar for it; `measures` does it
- `session`   the order: repeats outside, peers inside
- `report`    the table, results.md and results.json
- `load`, `growth`  programs of their own: what clients, sizes and cached entries cost the proxy alone

Every load has a limit in time, everything listens on loopback, and every program is ended by its own process id. The
lab of the tests (`tests/lab`) is used for programs, addresses, keys and images.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# the lab is no package of the bundle: it lies where the tests find it
if str(ROOT / "tests") not in sys.path:
    sys.path.insert(0, str(ROOT / "tests"))
