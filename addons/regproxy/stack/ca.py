"""Our CAs while the proxy runs: looked after, handed out, and known to which clients they went.

A CA ends, or is switched by the operator, while the proxy is up; so what `engine.rotation` decides at a start is
decided again every hour, and within a minute when a file has changed.
"""

import asyncio
import datetime as dt
import logging
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from regproxy.engine.authority import AuthorityError
from regproxy.engine.certificates import Certificates
from regproxy.engine.name_constraints import UnlimitedPatternError, hosts_outside, name_constraints
from regproxy.engine.rotation import Authorities, AuthorityFiles, RotationPlan, fingerprint, open_authorities
from regproxy.policy.ca_clients import CaClients
from regproxy.settings import Settings
from regproxy.stack.desk import Desk
from regproxy.store import ca_clients
from regproxy.store.crew.sharing import LockFile

logger = logging.getLogger(__name__)

LOOK_S = 60.0
"""How often the files are looked at, and what is known of clients is written down."""

DECIDE_S = 3600.0
"""How often it is decided anew, without a change of the files."""

TELL_S = 86400.0
"""How often the log names the clients that lack the next CA; for the first time an hour after the start."""

SHOWN_CLIENTS = 20
"""The addresses in one log line; the file has all."""

CLIENTS_FILE = "ca-clients.json"


class Ca:
    """The CAs as they are now, and who has fetched them."""

    def __init__(self, authorities: Authorities, clients: CaClients | None = None) -> None:
        self.authorities = authorities
        self.clients = clients or CaClients()

    def fetched_by(self, address: str) -> None:
        """Take note that a client has been given the certificates."""
        self.clients.fetched(address, self.authorities.fingerprints())

    def clients_without_newest(self) -> tuple[str, ...]:
        """Return the clients that a switch would cut off, as far as is known: they have not fetched the newest CA.

        Before there is a second CA nobody takes note of who connects, so this is for the time of the overlap.
        """
        return self.clients.without(fingerprint(self.authorities.newest.certificate))


class CaWatch:
    """Opens the CAs and looks after them."""

    def __init__(
        self, settings: Settings, certificates: Certificates, desk: Desk | None = None, lock: LockFile | None = None
    ) -> None:
        self._desk, self._lock = desk or Desk(), lock
        self._settings = settings
        self._certificates = certificates
        self._clients_file = settings.cache_directory / CLIENTS_FILE
        self._plan: RotationPlan
        self._seen: tuple[object, ...] = ()
        self._told: tuple[str, ...] = ()
        self.ca: Ca

    def open(self, now: dt.datetime) -> Ca:
        """Return the CAs, made if there is none, and sign with them from now on. Raises AuthorityError."""
        self._plan = rotation_plan(self._settings)
        with self._alone():
            authorities = open_authorities(self._plan, now)
        self.ca = Ca(authorities, CaClients.from_json(ca_clients.read(self._clients_file)))
        self._take(self.ca.authorities)
        return self.ca

    async def run(self) -> None:
        """Look at files and dates until the proxy ends."""
        decided_s, told_s = 0.0, TELL_S - DECIDE_S
        while True:
            await asyncio.sleep(LOOK_S)
            decided_s, told_s = decided_s + LOOK_S, told_s + LOOK_S
            if decided_s >= DECIDE_S or self._files_now() != self._seen:
                decided_s = 0.0
                # Reading a key of RSA takes up to 0.1 s, for its primes are checked.
                self._take_up(await asyncio.to_thread(self._decide, dt.datetime.now(dt.UTC)))
            if told_s >= TELL_S:
                told_s = 0.0
                self.tell_missing()
            self.write_clients()

    def look(self, now: dt.datetime) -> None:
        """Decide anew. A CA that has gone, or is being replaced file by file, does not take away the one in use."""
        self._take_up(self._decide(now))

    def tell_missing(self) -> None:
        """Name in the log who lacks the CA that will sign next."""
        following = self.ca.authorities.following
        missing = self.ca.clients_without_newest()
        if following is None or not missing or not self._desk.is_here:
            return
        shown = " ".join(missing[:SHOWN_CLIENTS]) + (" ..." if len(missing) > SHOWN_CLIENTS else "")
        logger.warning(
            "%d clients have not fetched the next CA (/ca.crt has both; until %s): %s",
            len(missing),
            self.ca.authorities.signing.certificate.not_valid_after_utc.date(),
            shown,
        )

    def write_clients(self) -> None:
        """Write down what is new about clients; without a place for it they are counted anew after a restart."""
        if not self.ca.clients.changed or not self._desk.is_here:
            return
        self.ca.clients.changed = False
        try:
            ca_clients.write(self._clients_file, self.ca.clients.to_json())
        except OSError as error:
            logger.debug("%s cannot be written: %s", self._clients_file, error.strerror)

    def _decide(self, now: dt.datetime) -> Authorities | str:
        """Return the CAs of the files, or why there are none."""
        if not self._plan.files.exist():
            return f"{self._plan.files.certificate} or its key is gone"
        try:
            with self._alone():
                return open_authorities(self._plan, now)
        except AuthorityError as error:
            return str(error)

    def _alone(self) -> AbstractContextManager[None]:
        """Keep other workers away from the files: one of them makes a CA, the others find it."""
        return nullcontext() if self._lock is None else self._lock.alone()

    def _take_up(self, found: Authorities | str) -> None:
        if isinstance(found, Authorities):
            self._take(found)
            return
        self._seen = self._files_now()
        self._tell((f"the CA in memory goes on: {found}",))

    def _take(self, authorities: Authorities) -> None:
        self.ca.authorities = authorities
        self._seen = self._files_now()
        self._certificates.on_client = self.ca.clients.connected if authorities.overlap else None
        signing = self._certificates.authority
        if signing is None or signing.certificate != authorities.signing.certificate:
            self._certificates.use(authorities.signing)
        self._tell((*authorities.warnings, *self._overlap_lines(), *self._limit_lines()))

    def _overlap_lines(self) -> tuple[str, ...]:
        following = self.ca.authorities.following
        if following is None:
            return ()
        ends = self.ca.authorities.signing.certificate.not_valid_after_utc
        told = (
            f"the CA ends on {ends:%Y-%m-%d} and {self._plan.files.next.certificate} comes after it: "
            "let every client fetch /ca.crt, which has both, and trust both (docs/ca.md)"
        )
        return (told,)

    def _limit_lines(self) -> tuple[str, ...]:
        outside = hosts_outside(self.ca.authorities.signing.certificate, self._settings.registries)
        if not outside:
            return ()
        told = (
            f"the CA {self._plan.files.certificate} is limited to other hosts than {' '.join(outside)}: clients will "
            "refuse its certificates for them; make a next CA and switch to it (docs/ca.md)"
        )
        return (told,)

    def _tell(self, lines: tuple[str, ...]) -> None:
        """Say what was not said the last time."""
        for line in lines:
            if line not in self._told and self._desk.is_here:
                logger.warning("%s", line)
        self._told = lines

    def _files_now(self) -> tuple[object, ...]:
        files = self._plan.files
        return tuple(_state(path) for pair in (files, files.next, files.old) for path in (pair.certificate, pair.key))


def rotation_plan(settings: Settings) -> RotationPlan:
    """Return what the settings say about CAs. Raises AuthorityError if a limited CA cannot have these hosts."""
    limits = None
    if settings.ca_name_constraints:
        try:
            limits = name_constraints(settings.registries)
        except UnlimitedPatternError as error:
            raise AuthorityError(f"CA_NAME_CONSTRAINTS=true: {error}") from None
    files = AuthorityFiles(settings.ca_certificate_file, settings.ca_key_file)
    return RotationPlan(files, settings.cert_password or None, limits, automatic=settings.ca_rotation)


def _state(path: Path) -> object:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino
