"""What can be checked on this machine before the proxy starts: port, directories, CA files, the authorities' bundle.

Each problem is one sentence that names the setting and the remedy. The checks do the real thing (bind, create a file,
read) instead of asking for permissions: root may do what the mode bits forbid, and a read-only mount forbids what they
allow.
The CA is neither parsed nor made here; that is the engine's.
"""

import contextlib
import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509

from regproxy.settings.model import DEBUG_HUB_PORT, DEBUG_PORT, Settings


def find_problems(settings: Settings) -> tuple[str, ...]:
    """Return one line for each reason why a proxy with these settings could not start.

    Creates the cache directory, and the CA directory if a new CA is wanted, with mode 0700.
    """
    return (
        *_port_problems(settings.listen_host, settings.listen_port, "set LISTEN_PORT"),
        *_debug_port_problems(settings),
        *_directory_problems("CACHE_DIRECTORY", settings.cache_directory, settings.cache_directory, "the cache"),
        *_ca_problems(settings),
        *_bundle_problems(settings.upstream_ca_file),
    )


def _debug_port_problems(settings: Settings) -> Iterator[str]:
    for port, variable in ((DEBUG_PORT, "DEBUG"), (DEBUG_HUB_PORT, "DEBUG_HUB")):
        if port not in settings.debug_ports:
            continue
        if port == settings.listen_port:
            yield f"LISTEN_PORT={port}: {variable}=true has its web interface there: use another port"
        else:
            yield from _port_problems(settings.listen_host, port, f"turn {variable} off")


def _port_problems(host: str, port: int, remedy: str) -> Iterator[str]:
    try:
        # Without a host this gives the wildcard address of each family, as the proxy will listen on them.
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        yield f"LISTEN_HOST={host}: this name has no address"
        return
    for family, _, _, _, address in found:
        try:
            _bind(family, address)
        except OSError as error:
            if not host and error.errno in {errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL}:
                continue  # a machine without IPv6 listens on IPv4
            yield _bind_problem(host, port, str(address[0]), error, remedy)
            return


def _bind(family: int, address: tuple[object, ...]) -> None:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        # As the proxy does it: connections of a proxy that has just stopped do not keep the port busy.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)


def _bind_problem(host: str, port: int, address: str, error: OSError, remedy: str) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"port {port} on {address} is in use: stop the other program or {remedy}"
        case errno.EACCES:
            return f"LISTEN_PORT={port}: no permission to listen on this port: use one above 1023"
        case errno.EADDRNOTAVAIL:
            return f"LISTEN_HOST={host}: not an address of this machine"
        case _:
            return f"port {port} on {address}: {error.strerror}"


def _directory_problems(variable: str, value: Path, directory: Path, content: str) -> Iterator[str]:
    """Tell if `directory`, which follows from the setting's value, cannot be made or written."""
    try:
        _create_private(directory)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        reason = "a file is in the way" if isinstance(error, FileExistsError) else error.strerror
        yield (
            f"{variable}={value}: {content} cannot be written there ({reason}, user id {os.geteuid()}): "
            f"give that user the directory{_or_run_as_owner(directory, error)} or set {variable}"
        )


def _create_private(directory: Path) -> None:
    """Create the directory with mode 0700, and its missing parents with the process's own umask."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.mkdir(mode=0o700, exist_ok=True)


def _ca_problems(settings: Settings) -> Iterator[str]:
    certificate, key = settings.ca_certificate_file, settings.ca_key_file
    match os.path.lexists(certificate), os.path.lexists(key):
        case True, True:
            yield from _unreadable("CA_CRT_FILE", certificate)
            yield from _unreadable("CA_KEY_FILE", key)
        case True, False:
            yield f"CA_KEY_FILE={key}: not there, but its certificate {certificate} is: give both or neither"
        case False, True:
            yield f"CA_CRT_FILE={certificate}: not there, but its key {key} is: give both or neither"
        case _:
            yield from _new_ca_problems(settings)


def _new_ca_problems(settings: Settings) -> Iterator[str]:
    """Check each directory that a new CA would be written to, under the name of the setting that chose it."""
    files = {"CA_CRT_FILE": settings.ca_certificate_file, "CA_KEY_FILE": settings.ca_key_file}
    chosen_by = {path.parent: (variable, path) for variable, path in files.items()}
    if settings.ca_directory in chosen_by:
        chosen_by[settings.ca_directory] = ("CA_DIRECTORY", settings.ca_directory)
    for directory, (variable, value) in chosen_by.items():
        yield from _directory_problems(variable, value, directory, "a new CA")


def _unreadable(variable: str, path: Path) -> Iterator[str]:
    try:
        if not path.read_bytes().strip():
            yield f"{variable}={path}: the file is empty"
    except OSError as error:
        reason = f"{error.strerror}, user id {os.geteuid()}"
        remedy = _or_run_as_owner(path, error)
        yield f"{variable}={path}: cannot be read ({reason})" + (f": give that user the file{remedy}" if remedy else "")


def _or_run_as_owner(path: Path, error: OSError) -> str:
    """Return the second remedy where it is one: volumes of a container that ran as root are still root's."""
    if not isinstance(error, PermissionError):
        return ""
    with contextlib.suppress(OSError):
        owner = path.stat().st_uid
        if owner != os.geteuid():
            return f" (chown -R {os.geteuid()} {path}), run as its owner (a container: --user {owner})"
    return ""


def _bundle_problems(bundle: Path | None) -> Iterator[str]:
    if bundle is None:
        return
    try:
        x509.load_pem_x509_certificates(bundle.read_bytes())
    except OSError as error:
        yield f"UPSTREAM_CA_FILE={bundle}: cannot be read ({error.strerror})"
    except ValueError:
        yield f"UPSTREAM_CA_FILE={bundle}: not a bundle of PEM certificates"
