"""The table of docs/clients.md: `python -m lab.clients.table` (in `tests/`, as root) prints it from real pulls.

Each client pulls one image of the lab's Docker Hub: cold, warm, with the registry, the token server and both of them
down, and without the proxy.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import CompletedProcess

from lab.clients.cell import MACHINE
from lab.clients.client import Door, Way
from lab.clients.counting import content_gets
from lab.clients.kinds import KINDS
from lab.clients.newer import newer_root
from lab.image import Image, make_image
from lab.lab import Lab
from lab.proxy import Proxy

HEAD = ("Client", "Cold", "Warm", "Registry down", "Token server down", "Both down", "Proxy down")
_CACHE = Path(__file__).parents[3] / "var" / "container"
_ONLY_NEWER = frozenset({"dockerd-containerd-store", "oras"})
_WITHOUT_MIRRORS = frozenset({"oras"})
_AT_ONCE_S = 2.0


class Row:
    """The pulls of one client."""

    def __init__(self, lab: Lab, proxy: Proxy, kind: str, root: Path, door: Door) -> None:
        self._lab = lab
        self._proxy = proxy
        self._kind = kind
        self._root = root
        self._way = Way(proxy.address, (proxy.ca_file, lab.pki.ca_file), door)
        self._name = f"library/table-{kind}-{'this' if root == MACHINE else 'newer'}-{door.value}"
        self._version = kind

    def cells(self) -> list[str]:
        """Return what was seen."""
        with tempfile.TemporaryDirectory(prefix="i-") as folder:
            image = make_image(Path(folder) / "image", seed=self._name, architectures=("amd64", "arm64"))
            self._lab.push(image, self._name)
            seen = [self._counted(image), self._counted(image)]
            for names in (("hub", "cdn"), ("auth",), ("hub", "cdn", "auth")):
                with _stopped(self._lab, names):
                    seen.append(self._pull(image))
            self._proxy.stop()
            seen.append(self._pull(image))
        return [self._version, *seen]

    def _counted(self, image: Image) -> str:
        registry, tokens = self._lab.hub.log.mark(), self._lab.auth.log.mark()
        outcome = self._pull(image)
        fetched, heads = content_gets(registry).total(), registry.count(method="HEAD")
        return f"{outcome}; {fetched} GET, {heads} HEAD, {tokens.count()} token"

    def _pull(self, image: Image) -> str:
        reference = f"docker.io/{self._name}:latest"
        with tempfile.TemporaryDirectory(prefix="c-") as folder:
            client = KINDS[self._kind](Path(folder) / "client", self._way, self._root)
            try:
                self._version = client.version.replace(" version", "")
                if "store" in self._kind:
                    self._version += " with the containerd store"
                start_s = time.monotonic()
                pulled = client.pull(reference)
                took_s = time.monotonic() - start_s
                if pulled.returncode == 0:
                    client.check(reference, image)
                    return "pulls"
            finally:
                client.close()
        when = "at once" if took_s < _AT_ONCE_S else f"after {took_s:.0f} s"
        return f"fails {when}: {_reason(pulled)}"


def _reason(failed: CompletedProcess[str]) -> str:
    said = (failed.stderr + failed.stdout).strip()
    known = {
        "connection refused": "connection refused",
        "Bad Gateway": "502",
        "Service Unavailable": "503",
        "lookup registry-1.docker.io": "goes on to the registry, whose name is unknown here",
    }
    return next((short for text, short in known.items() if text in said), said[-100:].replace("|", " "))


@contextmanager
def _stopped(lab: Lab, names: tuple[str, ...]) -> Iterator[None]:
    with ExitStack() as cleanup:
        for name in names:
            server = getattr(lab, name)
            cleanup.callback(server.start)
            server.stop()
        yield


def main() -> None:
    """Print one table a door."""
    parser = argparse.ArgumentParser(description="Pull with every client and print what was seen.")
    parser.add_argument("--door", type=Door, action="append", help="proxy or mirror; may be given twice")
    parser.add_argument("--client", action="append", help=f"one of {', '.join(KINDS)}; default: all")
    chosen = parser.parse_args()
    releases = {MACHINE: [kind for kind in KINDS if kind not in _ONLY_NEWER], newer_root(_CACHE): list(KINDS)}
    with tempfile.TemporaryDirectory(prefix="lab-") as folder, Lab(Path(folder)) as lab:
        sys.stdout.write("".join(f"| {name} " for name in HEAD) + "|\n" + "|---" * len(HEAD) + "|\n")
        for door in chosen.door or [Door.PROXY]:
            for root, kinds in releases.items():
                for kind in chosen.client or kinds:
                    if door is Door.MIRROR and kind in _WITHOUT_MIRRORS:
                        continue
                    with lab.proxy(Path(tempfile.mkdtemp(dir=folder))) as proxy:
                        cells = Row(lab, proxy, kind, root, door).cells()
                    sys.stdout.write("".join(f"| {cell} " for cell in cells) + "|\n")
                    sys.stdout.flush()


if __name__ == "__main__":
    main()
