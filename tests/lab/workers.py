"""Clients that know which worker of a proxy they talk to: a connection stays with the one that accepted it."""

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Iterator
from http.client import HTTPConnection
from pathlib import Path

from lab.proxy import Proxy
from regproxy.engine.board import WORD_BYTES
from regproxy.store.crew.stamps import LOOKED_AT_EPOCH, LOST, Stamps

SUPERVISOR = "regproxy.engine.supervisor"

_LIMIT_S = 60.0
_POLL_S = 0.05


def supervisor_pid(proxy: Proxy) -> int:
    """Return the process id of the parent of the workers."""
    (pid,) = [pid for pid in proxy.pids() if SUPERVISOR in _command_line(pid)]
    return pid


def worker_pids(proxy: Proxy, count: int) -> list[int]:
    """Wait until so many workers accept connections, and return their process ids; AssertionError."""
    deadline_s = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline_s:
        inode = _listening_inode(proxy)
        pids = [pid for pid in proxy.pids() if SUPERVISOR not in _command_line(pid) and _accepts(pid, inode)]
        if len(pids) == count:
            return pids
        time.sleep(_POLL_S)
    raise AssertionError(f"there are not {count} workers:\n{proxy.log}")


def settled_rss_bytes(proxy: Proxy) -> int:
    """Return the memory of all workers: one that starts later would look like growth."""
    count = int(proxy.settings["WORKERS"])
    if count > 1:
        worker_pids(proxy, count)
    return proxy.rss_bytes()


def worker_of(proxy: Proxy, connection: HTTPConnection) -> int:
    """Return the process id of the worker that has accepted a connection; AssertionError."""
    port = connection.sock.getsockname()[1]
    deadline_s = time.monotonic() + _LIMIT_S
    while time.monotonic() < deadline_s:
        inode = _inode(lambda local, remote: (local, remote) == (proxy.address.port, port))
        for pid in proxy.pids():
            if inode is not None and f"socket:[{inode}]" in _descriptors(pid):
                return pid
        time.sleep(_POLL_S)
    raise AssertionError(f"nobody has accepted {connection.sock}")


@contextlib.contextmanager
def one_connection_each(proxy: Proxy, count: int) -> Iterator[dict[int, HTTPConnection]]:
    """Yield a connection to each of so many workers, by process id."""
    workers = worker_pids(proxy, count)
    found: dict[int, HTTPConnection] = {}
    with contextlib.ExitStack() as cleanup:
        deadline_s = time.monotonic() + _LIMIT_S
        while found.keys() != set(workers):
            assert time.monotonic() < deadline_s, f"only {found.keys()} of {workers} accept connections"
            connection = HTTPConnection(*proxy.address, timeout=_LIMIT_S)
            cleanup.callback(connection.close)
            with _held(found):  # one worker may accept all who come while the others are idle
                connection.connect()
                found.setdefault(worker_of(proxy, connection), connection)
        yield found


@contextlib.contextmanager
def _held(pids: Iterable[int]) -> Iterator[None]:
    """Let processes do nothing meanwhile."""
    held = list(pids)
    try:
        for pid in held:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in held:
            os.kill(pid, signal.SIGCONT)


def is_looked_after(proxy: Proxy) -> bool:
    """Whether all is looked for that workers have left which died, or have lost: the board says so."""
    pid = supervisor_pid(proxy)
    for entry in _entries(Path(f"/proc/{pid}/fd")):
        if "memfd:registry-proxy-workers" in str(entry.readlink()):
            with entry.open("rb") as board:
                stamps = Stamps(memoryview(board.read((LOST + 1) * WORD_BYTES)).cast("Q"))
            return stamps.current(LOST) == stamps.word(LOOKED_AT_EPOCH)
    raise AssertionError(f"the supervisor {pid} has no board")


def _listening_inode(proxy: Proxy) -> int | None:
    return _inode(lambda local, remote: (local, remote) == (proxy.address.port, 0))


def _accepts(pid: int, listening_inode: int | None) -> bool:
    """Whether a process watches the listening socket: it has asked epoll for it."""
    for entry in _entries(Path(f"/proc/{pid}/fdinfo")):
        with contextlib.suppress(OSError):
            if f" ino:{listening_inode:x} " in f"{entry.read_text()} " if listening_inode is not None else False:
                return True
    return False


def _inode(is_it: object) -> int | None:
    assert callable(is_it)
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        local, remote = (int(each.rpartition(":")[2], 16) for each in fields[1:3])
        if is_it(local, remote) and fields[9] != "0":
            return int(fields[9])
    return None


def _descriptors(pid: int) -> set[str]:
    found = set()
    for entry in _entries(Path(f"/proc/{pid}/fd")):
        with contextlib.suppress(OSError):
            found.add(str(entry.readlink()))
    return found


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""
