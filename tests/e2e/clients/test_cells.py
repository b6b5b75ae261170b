"""The small machines of the clients: what they write stays with them, what they start ends, and a check can say no."""

from pathlib import Path

import pytest

from lab.clients.cell import Cell, why_not
from lab.clients.client import Way
from lab.clients.fixtures import CLIENTS, StartClient, reference
from lab.fixtures import MakeImage
from lab.lab import Lab
from lab.proxy import Proxy

pytestmark = [pytest.mark.e2e, pytest.mark.clients]


@pytest.fixture
def cell(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Cell:
    """Return a small machine."""
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    way = Way(lab.noauth.address, (lab.pki.ca_file,))
    return Cell(tmp_path_factory.mktemp("c") / "cell", way)


def processes(word: str) -> list[str]:
    """Return the command lines of this machine that contain `word`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if word in line:
            found.append(line)
    return found


def test_what_a_cell_writes_is_its_own(cell: Cell, lab: Lab) -> None:
    """A file in /etc or /run, a mount and the CA of a cell are not seen by the machine."""
    before = Path("/proc/self/mounts").read_text()
    cell.write("/etc/cell-test", "of the cell")
    script = "cat /etc/cell-test; mount -t tmpfs tmpfs /mnt; touch /etc/cell-made /run/cell-made /mnt/cell-made"
    with cell:
        assert cell.expect("sh", "-ec", script) == "of the cell"
        assert lab.pki.ca_file.read_text() in cell.expect("cat", "/etc/ssl/certs/ca-certificates.crt")
    assert [path for path in ("/etc/cell-test", "/etc/cell-made", "/run/cell-made") if Path(path).exists()] == []
    assert Path("/proc/self/mounts").read_text() == before
    assert not cell.directory.exists()


def test_daemons_end_with_their_cell(start_client: StartClient, proxy: Proxy) -> None:
    """Docker's daemon, the containerd that it starts, and the namespaces around them."""
    client = start_client("dockerd", proxy)
    directory = str(client._cell.directory)  # type: ignore[attr-defined]
    assert len(processes(directory)) > 0
    client.close()
    assert processes(directory) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", CLIENTS)
def test_a_check_tells_images_apart(
    lab: Lab, proxy: Proxy, start_client: StartClient, build_image: MakeImage, kind: str
) -> None:
    """A client that has pulled one image does not pass for one that has pulled another."""
    pulled, other = build_image("pulled"), build_image("other")
    lab.push(pulled, f"checked/{kind}")
    client = start_client(kind, proxy)
    assert client.pull(reference(lab.noauth, f"checked/{kind}")).returncode == 0
    client.check(reference(lab.noauth, f"checked/{kind}"), pulled)
    with pytest.raises((AssertionError, FileNotFoundError)):
        client.check(reference(lab.noauth, f"checked/{kind}"), other)
