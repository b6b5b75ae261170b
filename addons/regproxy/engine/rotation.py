"""From one CA to the next without a client that trusts neither.

`ca.crt` and `ca.key` sign. Ninety days before they end `ca-next.crt` and `ca-next.key` are made beside them, or lie
there because the operator made or put them there. From then on `/ca.crt` serves both, so that clients which fetch it
trust both. Fourteen days before the end, or earlier by the operator's command, the next CA becomes `ca.crt`, and the
former certificate stays as `ca-old.crt`, served beside it until it ends: a client that is set up in between gets along
with both halves of a pair of proxies.

A CA that was not made here, a predecessor's or the office's, stays as it is until the operator makes or puts the next
one beside it: only the operator knows who else trusts it, and whether another CA has signed it.
"""

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from regproxy.engine.authority import WARN_BEFORE, Authority, AuthorityError, create, load, load_or_create, write_whole

SWITCH_BEFORE = dt.timedelta(days=14)
"""What is left of a CA when the next one takes over: time to find who has not got it, while going back is possible."""


@dataclass(frozen=True, slots=True)
class AuthorityFiles:
    """Where a CA lies."""

    certificate: Path
    key: Path

    @property
    def next(self) -> "AuthorityFiles":
        """Where the one after it lies."""
        return self._beside("-next")

    @property
    def old(self) -> "AuthorityFiles":
        """Where the one before it lies."""
        return self._beside("-old")

    @property
    def are_one(self) -> bool:
        """Whether certificate and key share a file, which leaves no names for a second pair."""
        return self.certificate == self.key

    def exist(self) -> bool:
        """Whether both files are there."""
        return self.certificate.exists() and self.key.exists()

    def _beside(self, suffix: str) -> "AuthorityFiles":
        return AuthorityFiles(*(path.with_stem(path.stem + suffix) for path in (self.certificate, self.key)))


@dataclass(frozen=True, slots=True)
class Authorities:
    """The CA that signs, and what else clients are to trust."""

    signing: Authority
    following: Authority | None = None
    """The CA that will sign."""
    former_pem: bytes = b""
    """The certificate that signed before, as long as it is good."""
    warnings: tuple[str, ...] = ()
    """What the operator should know; one line each."""

    @property
    def trust_pem(self) -> bytes:
        """What `/ca.crt` serves: every CA that a client should trust now, the one that signs first."""
        following = b"" if self.following is None else self.following.chain_pem
        return b"".join(pem if pem.endswith(b"\n") else pem + b"\n" for pem in self._pems(following) if pem)

    @property
    def newest(self) -> Authority:
        """The CA that clients have to have when the next switch is over."""
        return self.following or self.signing

    @property
    def overlap(self) -> bool:
        """Whether clients need two CAs now."""
        return self.following is not None or bool(self.former_pem)

    def fingerprints(self) -> tuple[str, ...]:
        """Return the fingerprints of those CAs."""
        return tuple(fingerprint(each) for each in x509.load_pem_x509_certificates(self.trust_pem))

    def _pems(self, following: bytes) -> tuple[bytes, ...]:
        return (self.signing.chain_pem, following, self.former_pem)


@dataclass(frozen=True, slots=True)
class RotationPlan:
    """What is to be done about CAs."""

    files: AuthorityFiles
    passphrase: str | None = None
    limits: x509.NameConstraints | None = None
    """The names that a new CA can sign for; None for all."""
    automatic: bool = True
    """A next CA is made and takes over by itself."""


def fingerprint(certificate: x509.Certificate) -> str:
    """Return the SHA-256 of a certificate, in lower-case hex."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def open_authorities(plan: RotationPlan, now: dt.datetime) -> Authorities:
    """Return the CAs, after what is due has been done: the first made, the next made, or the next in its office.

    Raises `AuthorityError` if there is no CA to sign with. What goes wrong with the next one is a warning.
    """
    files = plan.files
    if files.are_one:
        authority = load_or_create(files.certificate, files.key, plan.passphrase, now, plan.limits)
        return Authorities(authority, warnings=authority.end_is_near(files.certificate, now))
    _finish_switch(plan)
    following, warnings = _following(plan, now)
    if plan.automatic and following is not None and _ends_within(files.certificate, SWITCH_BEFORE, now):
        return _in_office(plan, following, now)
    signing = load_or_create(files.certificate, files.key, plan.passphrase, now, plan.limits)
    if following is None and not warnings and _wants_next(plan, signing, now):
        following, warnings = _make(plan, now)
    if following is None:
        warnings += signing.end_is_near(files.certificate, now)
    return Authorities(signing, following, _former_pem(files, now), warnings)


def make_next(plan: RotationPlan, now: dt.datetime) -> Authority:
    """Make the next CA now. Raises `AuthorityError` if there is one, or it cannot be written."""
    files = plan.files.next
    if plan.files.are_one:
        raise AuthorityError(f"{plan.files.key} holds certificate and key: give each a file of its own")
    if files.certificate.exists() or files.key.exists():
        raise AuthorityError(f"there is a next CA already: {files.certificate}")
    return create(files.certificate, files.key, now, plan.limits)


def switch(files: AuthorityFiles) -> None:
    """Put the next CA into its office; a crash at any point leaves a pair that works or that `_finish_switch` mends.

    Raises OSError.
    """
    if files.exist():
        write_whole(files.old.key, files.key.read_bytes(), 0o600)
        write_whole(files.old.certificate, files.certificate.read_bytes(), 0o644)
    files.next.key.replace(files.key)
    files.next.certificate.replace(files.certificate)


def _finish_switch(plan: RotationPlan) -> None:
    """Move the next certificate after its key, if a crash came between the two."""
    files = plan.files
    if not files.next.certificate.exists() or files.next.key.exists():
        return
    try:
        load(files.next.certificate, files.key, plan.passphrase, dt.datetime.min.replace(tzinfo=dt.UTC))
    except AuthorityError:
        return  # the key in office is another's
    files.next.certificate.replace(files.certificate)


def _following(plan: RotationPlan, now: dt.datetime) -> tuple[Authority | None, tuple[str, ...]]:
    files = plan.files.next
    if not files.certificate.exists() and not files.key.exists():
        return None, ()
    try:
        return load(files.certificate, files.key, plan.passphrase, now), ()
    except AuthorityError as error:
        return None, (f"the next CA is not used: {error}",)


def _make(plan: RotationPlan, now: dt.datetime) -> tuple[Authority | None, tuple[str, ...]]:
    try:
        return make_next(plan, now), ()
    except AuthorityError as error:
        return None, (f"the CA ends soon and the next one cannot be made: {error}",)


def _wants_next(plan: RotationPlan, signing: Authority, now: dt.datetime) -> bool:
    ends_soon = signing.certificate.not_valid_after_utc - now <= WARN_BEFORE
    return plan.automatic and signing.was_made_here and ends_soon


def _in_office(plan: RotationPlan, following: Authority, now: dt.datetime) -> Authorities:
    files = plan.files
    former = _good_certificate(files.certificate, now)
    try:
        switch(files)
    except OSError as error:
        told = (
            f"{files.certificate} ends soon, so {files.next.certificate} signs; it cannot take its place "
            f"({error.strerror}): move {files.next.certificate.name} and {files.next.key.name} there"
        )
    else:
        told = f"from now on the CA is {_described(following)}; the one before is {files.old.certificate}"
    return Authorities(following, None, former, (told,))


def _ends_within(certificate_file: Path, time: dt.timedelta, now: dt.datetime) -> bool:
    """Whether there is a certificate that ends so soon, or has ended."""
    try:
        certificate = x509.load_pem_x509_certificate(certificate_file.read_bytes())
    except (OSError, ValueError):
        return False
    return certificate.not_valid_after_utc - now <= time


def _former_pem(files: AuthorityFiles, now: dt.datetime) -> bytes:
    return _good_certificate(files.old.certificate, now)


def _good_certificate(path: Path, now: dt.datetime) -> bytes:
    """Return the first certificate of a file as PEM, nothing if there is none or it has ended."""
    try:
        certificate = x509.load_pem_x509_certificate(path.read_bytes())
    except (OSError, ValueError):
        return b""
    return certificate.public_bytes(Encoding.PEM) if certificate.not_valid_after_utc > now else b""


def _described(authority: Authority) -> str:
    certificate = authority.certificate
    return f"{certificate.subject.rfc4514_string()}, good until {certificate.not_valid_after_utc:%Y-%m-%d}"
