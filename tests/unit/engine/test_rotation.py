"""From one CA to the next: when it is made, when it signs, and what is left after a crash."""

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from regproxy.engine import authority, rotation
from regproxy.engine.authority import LIFETIME_DAYS, AuthorityError, create
from regproxy.engine.certificates import Certificates
from regproxy.engine.rotation import (
    Authorities,
    AuthorityFiles,
    RotationPlan,
    fingerprint,
    make_next,
    open_authorities,
    switch,
)

NOW = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
ENDS = NOW - dt.timedelta(days=1) + dt.timedelta(days=LIFETIME_DAYS)
"""When a CA that is made now ends."""


def before_end(days: float) -> dt.datetime:
    return ENDS - dt.timedelta(days=days)


@pytest.fixture
def plan(tmp_path: Path) -> RotationPlan:
    return RotationPlan(AuthorityFiles(tmp_path / "ca.crt", tmp_path / "ca.key"))


@pytest.fixture
def first(plan: RotationPlan) -> x509.Certificate:
    """Return the CA that is made now."""
    return open_authorities(plan, NOW).signing.certificate


def names(plan: RotationPlan) -> list[str]:
    return sorted(path.name for path in plan.files.key.parent.iterdir())


def served(authorities: Authorities) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(authorities.trust_pem)


class TestMaking:
    @pytest.mark.usefixtures("first")
    def test_long_before_the_end_there_is_one_ca(self, plan: RotationPlan) -> None:
        """On the 91st day before nothing is made or said."""
        authorities = open_authorities(plan, before_end(91))

        assert (authorities.following, authorities.warnings, authorities.overlap) == (None, (), False)
        assert names(plan) == ["ca.crt", "ca.key"]
        assert authorities.trust_pem == plan.files.certificate.read_bytes()

    def test_ninety_days_before_the_end_the_next_one_is_made(self, plan: RotationPlan, first: x509.Certificate) -> None:
        """The old one signs, both are served, the old one first; a second look makes no third."""
        at = before_end(90)
        authorities = open_authorities(plan, at)

        assert authorities.following is not None
        assert authorities.signing.certificate == first
        assert served(authorities) == [first, authorities.following.certificate]
        assert authorities.newest is authorities.following
        assert authorities.fingerprints() == tuple(fingerprint(each) for each in served(authorities))
        assert authorities.following.certificate.not_valid_after_utc > at + dt.timedelta(days=800)
        again = open_authorities(plan, at)
        assert again.following is not None
        assert again.following.certificate == authorities.following.certificate
        assert names(plan) == ["ca-next.crt", "ca-next.key", "ca.crt", "ca.key"]
        assert plan.files.next.key.stat().st_mode & 0o777 == 0o600

    @pytest.mark.usefixtures("first")
    def test_who_does_not_want_it_is_warned_only(self, plan: RotationPlan) -> None:
        """`CA_ROTATION=false`: nothing is made and nothing takes over; the end is told."""
        by_hand = RotationPlan(plan.files, automatic=False)
        authorities = open_authorities(by_hand, before_end(60))

        assert authorities.following is None
        assert "in 60 days" in authorities.warnings[0]
        assert names(plan) == ["ca.crt", "ca.key"]
        made = make_next(by_hand, before_end(60)).certificate
        assert served(open_authorities(by_hand, before_end(1)))[1] == made
        assert open_authorities(by_hand, before_end(1)).signing.certificate != made

    @pytest.mark.parametrize("issuer", ["CN=Office root", "CN=Proxies"])
    def test_a_ca_that_was_not_made_here_stays(self, plan: RotationPlan, issuer: str) -> None:
        """A predecessor's or the office's, signed by itself or another: told, and left to the operator."""
        root = ec.generate_private_key(ec.SECP256R1())
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = (
            x509.CertificateBuilder()
            .subject_name(x509.Name.from_rfc4514_string("CN=Proxies"))
            .issuer_name(x509.Name.from_rfc4514_string(issuer))
            .public_key(key.public_key())
            .serial_number(7)
            .not_valid_before(NOW)
            .not_valid_after(ENDS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(root, hashes.SHA256())
        )
        plan.files.certificate.write_bytes(certificate.public_bytes(Encoding.PEM))
        plan.files.key.write_bytes(
            key.private_bytes(Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )

        authorities = open_authorities(plan, before_end(30))

        assert authorities.following is None
        assert "ends on" in authorities.warnings[0]
        assert names(plan) == ["ca.crt", "ca.key"]
        made = make_next(plan, before_end(20)).certificate
        assert open_authorities(plan, before_end(20)).newest.certificate == made
        assert open_authorities(plan, before_end(10)).signing.certificate == made

    @pytest.mark.usefixtures("first")
    def test_a_next_ca_that_is_broken_is_told_and_kept(self, plan: RotationPlan) -> None:
        """The proxy starts with the CA it has, and overwrites nothing of the operator's."""
        plan.files.next.certificate.write_text("not a certificate")
        authorities = open_authorities(plan, before_end(60))

        assert authorities.following is None
        assert any("ca-next.crt cannot be read" in warning for warning in authorities.warnings)
        assert plan.files.next.certificate.read_text() == "not a certificate"

    def test_one_file_for_both_has_no_next(self, tmp_path: Path) -> None:
        """`CA_CRT_FILE` and `CA_KEY_FILE` may be one file; the end is told, and its key is never served."""
        create(tmp_path / "ca.crt", tmp_path / "ca.key", NOW)
        both = tmp_path / "both.pem"
        both.write_bytes((tmp_path / "ca.key").read_bytes() + (tmp_path / "ca.crt").read_bytes())
        plan = RotationPlan(AuthorityFiles(both, both))

        authorities = open_authorities(plan, before_end(60))

        assert "ends on" in authorities.warnings[0]
        assert authorities.trust_pem == (tmp_path / "ca.crt").read_bytes()
        with pytest.raises(AuthorityError, match=r"both\.pem holds certificate and key"):
            make_next(plan, NOW)


class TestSwitching:
    @pytest.fixture
    def following(self, plan: RotationPlan, first: x509.Certificate) -> x509.Certificate:
        """Return the next CA, made 60 days before the end."""
        assert first.not_valid_after_utc == ENDS
        return make_next(plan, before_end(60)).certificate

    @pytest.mark.parametrize(("days", "switched"), [(15, False), (14, True), (0.5, True), (-3, True)])
    def test_fourteen_days_before_the_end_the_next_one_signs(
        self, plan: RotationPlan, first: x509.Certificate, following: x509.Certificate, days: float, switched: bool
    ) -> None:
        """Also when the proxy was off at that time and the old one has ended; a good old one is still served."""
        authorities = open_authorities(plan, before_end(days))

        assert authorities.signing.certificate == (following if switched else first)
        assert set(served(authorities)) == ({following} if days < 0 else {first, following})
        assert x509.load_pem_x509_certificate(plan.files.certificate.read_bytes()) == authorities.signing.certificate
        assert plan.files.old.exist() is switched
        again = open_authorities(plan, before_end(days))
        assert again.signing.certificate == authorities.signing.certificate
        assert served(again) == served(authorities)

    def test_the_old_one_goes_when_it_ends(
        self, plan: RotationPlan, first: x509.Certificate, following: x509.Certificate
    ) -> None:
        """What no client can use is not handed out."""
        switch(plan.files)

        assert served(open_authorities(plan, before_end(1))) == [following, first]
        assert served(open_authorities(plan, before_end(-1))) == [following]

    @pytest.mark.usefixtures("first", "following")
    def test_its_files_keep_their_modes(self, plan: RotationPlan) -> None:
        """Keys are for their owner, certificates for everybody."""
        switch(plan.files)

        modes = {path.name: path.stat().st_mode & 0o777 for path in plan.files.key.parent.iterdir()}
        assert modes == {"ca.crt": 0o644, "ca.key": 0o600, "ca-old.crt": 0o644, "ca-old.key": 0o600}

    @pytest.mark.parametrize("after", range(4))
    def test_a_crash_on_the_way_loses_no_ca(
        self, plan: RotationPlan, following: x509.Certificate, monkeypatch: pytest.MonkeyPatch, after: int
    ) -> None:
        """After each of the four steps the next start has a pair that works, and ends with the next CA in office."""
        steps = 0
        write_whole, replace = authority.write_whole, Path.replace

        def step() -> None:
            nonlocal steps
            steps += 1
            if steps > after:
                raise KeyboardInterrupt

        def counted_write(path: Path, content: bytes, mode: int) -> None:
            step()
            write_whole(path, content, mode)

        def counted_replace(path: Path, target: Path) -> Path:
            step()
            return replace(path, target)

        with monkeypatch.context() as patched:
            patched.setattr(rotation, "write_whole", counted_write)
            patched.setattr(Path, "replace", counted_replace)
            with pytest.raises(KeyboardInterrupt):
                switch(plan.files)

        assert open_authorities(plan, before_end(10)).signing.certificate == following

    def test_files_that_cannot_be_moved_do_not_keep_it_from_signing(
        self, plan: RotationPlan, following: x509.Certificate, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A read-only directory: the next CA signs where it lies, and what to do is told."""

        def read_only(_files: AuthorityFiles) -> None:
            raise OSError(30, "Read-only file system")

        monkeypatch.setattr(rotation, "switch", read_only)
        authorities = open_authorities(plan, before_end(5))

        assert authorities.signing.certificate == following
        assert "Read-only file system" in authorities.warnings[0]
        assert len(served(authorities)) == 2


def test_a_leaf_of_a_ca_that_ends_is_not_made_for_each_connection(plan: RotationPlan) -> None:
    """With less than a leaf's time for renewal left, one is still used for half of what there is."""
    certificates = Certificates()
    certificates.authority = open_authorities(plan, NOW).signing
    certificates.context_for("quay.io", before_end(-9))  # also when it has ended
    context = certificates.context_for("ghcr.io", before_end(20))

    assert certificates.context_for("ghcr.io", before_end(11)) is context
    assert certificates.context_for("ghcr.io", before_end(9)) is not context
