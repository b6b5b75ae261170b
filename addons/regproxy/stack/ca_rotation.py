"""The CA's rotation from a shell: `python -m regproxy.stack.ca_rotation [status | make | switch [--anyway]]`.

    status   (also without a word) which CAs there are, until when, and which clients have not fetched the newest
    make     make the next CA now, to be served by /ca.crt beside the one that signs; a running proxy takes it up within
             a minute
    switch   let the next CA sign, if every client that is known has fetched it; --anyway does not ask for that

The files and the list of clients are those of the proxy's settings. Exit code 1: it could not be done.
"""

import datetime as dt
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cryptography import x509

from regproxy.engine.authority import AuthorityError, load
from regproxy.engine.rotation import AuthorityFiles, RotationPlan, fingerprint, make_next, switch
from regproxy.policy.ca_clients import CaClients
from regproxy.settings import Settings, SettingsError, load_settings
from regproxy.stack.ca import CLIENTS_FILE, rotation_plan
from regproxy.store import ca_clients

USAGE = "usage: python -m regproxy.stack.ca_rotation [status | make | switch [--anyway]]"


def main(arguments: Sequence[str], environ: Mapping[str, str], now: dt.datetime) -> int:
    """Do one thing and return the exit code: 1 if it could not be done, 2 for a wrong use."""
    try:
        settings = load_settings(environ)
        plan = rotation_plan(settings)
        match list(arguments):
            case [] | ["status"]:
                lines = list(_status(settings, plan, now))
            case ["make"]:
                made = make_next(plan, now).certificate
                lines = [f"made {plan.files.next.certificate}, good until {made.not_valid_after_utc:%Y-%m-%d}"]
            case ["switch", *options] if options in ([], ["--anyway"]):
                lines = [_switch(settings, plan, now, anyway=bool(options))]
            case _:
                sys.stderr.write(f"{USAGE}\n")
                return 2
    except (SettingsError, AuthorityError) as error:
        sys.stderr.write(f"registry-proxy: error: {error}\n")
        return 1
    except OSError as error:
        sys.stderr.write(f"registry-proxy: error: {error.filename}: {error.strerror} (user id {os.geteuid()})\n")
        return 1
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _status(settings: Settings, plan: RotationPlan, now: dt.datetime) -> Iterator[str]:
    newest = ""
    for word, files in (("signs", plan.files), ("next", plan.files.next), ("former", plan.files.old)):
        if files.certificate.exists():
            certificate = _certificate(files.certificate)
            newest = newest if word == "former" else fingerprint(certificate)
            ends = certificate.not_valid_after_utc
            yield f"{word}: {files.certificate}, {'good until' if ends > now else 'ended on'} {ends:%Y-%m-%d}"
    if not newest:
        yield f"there is no CA at {plan.files.certificate} yet"
    elif plan.files.next.exist():
        missing = _clients(settings).without(newest)
        yield f"clients without the next CA: {' '.join(missing) or 'none is known'}"


def _certificate(path: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except ValueError:
        raise AuthorityError(f"{path} is not a certificate") from None


def _switch(settings: Settings, plan: RotationPlan, now: dt.datetime, *, anyway: bool) -> str:
    files: AuthorityFiles = plan.files
    if not files.next.exist():
        raise AuthorityError(f"there is no next CA at {files.next.certificate}: make it first")
    following = load(files.next.certificate, files.next.key, plan.passphrase, now).certificate
    missing = _clients(settings).without(fingerprint(following))
    if missing and not anyway:
        raise AuthorityError(
            f"not fetched yet by {' '.join(missing)}: let them fetch /ca.crt and trust both certificates in it, "
            "or switch --anyway"
        )
    switch(files)
    return f"{files.certificate} is the next CA now; the former one is {files.old.certificate}"


def _clients(settings: Settings) -> CaClients:
    return CaClients.from_json(ca_clients.read(settings.cache_directory / CLIENTS_FILE))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ, dt.datetime.now(dt.UTC)))
