"""A TLS certificate of our CA for a server beside the proxy.

`python -m regproxy.stack.server_certificate DIRECTORY NAME...`: an own registry needs a certificate that the hosts
trust already, and they trust the proxy's CA. `DIRECTORY/NAME.crt` (the leaf and its authority) and `DIRECTORY/NAME.key`
are written, named after the first name. A pair that is still good for all the names is kept, so the command may run at
every start. The CA is the one of the proxy's settings, and is made if there is none.
"""

import datetime as dt
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from regproxy.engine.authority import Authority, AuthorityError
from regproxy.engine.certificates import LEAF_RENEWAL, issue_leaf
from regproxy.engine.name_constraints import allows_host
from regproxy.engine.rotation import open_authorities
from regproxy.settings import SettingsError, load_settings
from regproxy.stack.ca import rotation_plan

USAGE = "usage: python -m regproxy.stack.server_certificate DIRECTORY NAME..."

_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z.:-]*")
"""A host name or an IP literal; also a part of a file's name, so without slashes."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """Where a server's certificate and its key lie."""

    certificate_file: Path
    key_file: Path


def main(arguments: Sequence[str], environ: Mapping[str, str], now: dt.datetime) -> int:
    """Write or keep one key pair and return the exit code: 1 if it could not be done, 2 for a wrong use."""
    match list(arguments):
        case [directory, *names] if names and all(_NAME.fullmatch(name) for name in names):
            pair = KeyPair(Path(directory) / f"{names[0]}.crt", Path(directory) / f"{names[0]}.key")
        case _:
            sys.stderr.write(f"{USAGE}\n")
            return 2
    try:
        settings = load_settings(environ)
        authority = open_authorities(rotation_plan(settings), now).signing
        _refuse_outside(authority, names)
        done = "kept" if is_good(pair, names, authority, now) else _issue(pair, names, authority, now)
        ends = _certificate(pair).not_valid_after_utc
    except (SettingsError, AuthorityError) as error:
        sys.stderr.write(f"registry-proxy: error: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(
            f"registry-proxy: error: {error.filename}: {error.strerror} (user id {os.geteuid()}): "
            f"give that user the directory {directory}\n"
        )
        return 1
    sys.stdout.write(f"{done} {pair.certificate_file}, good until {ends:%Y-%m-%d}, for {' '.join(names)}\n")
    return 0


def is_good(pair: KeyPair, names: Sequence[str], authority: Authority, now: dt.datetime) -> bool:
    """Return whether the pair is of this authority, for exactly these names, and not to be renewed yet.

    A damaged pair is not good. Raises OSError if the files are there but cannot be read.
    """
    try:
        certificate = _certificate(pair)
        key = serialization.load_pem_private_key(pair.key_file.read_bytes(), password=None)
        certificate.verify_directly_issued_by(authority.certificate)
        named = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (FileNotFoundError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    return (
        key.public_key() == certificate.public_key()
        and [str(name.value) for name in named] == list(names)
        and certificate.not_valid_after_utc - LEAF_RENEWAL > now
    )


def _refuse_outside(authority: Authority, names: Sequence[str]) -> None:
    """Raise AuthorityError for a name that the CA's limits do not allow: no client would accept the certificate."""
    outside = [name for name in names if not allows_host(authority.certificate, name.lower())]
    if outside:
        raise AuthorityError(
            f"the CA is limited to other hosts than {' '.join(outside)}: list them in REGISTRIES when a CA is made, "
            "or set CA_NAME_CONSTRAINTS=false"
        )


def _issue(pair: KeyPair, names: Sequence[str], authority: Authority, now: dt.datetime) -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = issue_leaf(authority, key, names[0], now, also=names[1:])
    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pair.key_file.parent.mkdir(parents=True, exist_ok=True)
    _replace(pair.key_file, key_pem, 0o600)
    _replace(pair.certificate_file, leaf.public_bytes(serialization.Encoding.PEM) + authority.chain_pem, 0o644)
    return "wrote"


def _certificate(pair: KeyPair) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pair.certificate_file.read_bytes())


def _replace(path: Path, content: bytes, mode: int) -> None:
    """Write `path` whole or not at all."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        os.fsync(file.fileno())
    temporary.rename(path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ, dt.datetime.now(dt.UTC)))
