"""A CA for the configured hosts only: what OpenSSL accepts of it, and what we say of it, are the same."""

import datetime as dt
import ssl
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from regproxy.engine.authority import Authority, create
from regproxy.engine.certificates import Certificates, issue_leaf
from regproxy.engine.name_constraints import UnlimitedPatternError, allows_host, hosts_outside, name_constraints
from regproxy.policy.interception import BUILT_IN_HOSTS, HostPattern
from unit.engine.tls_pair import TlsClient, accept, shake_hands

NAMES = ("quay.io", "*.dkr.ecr.*.amazonaws.com", "reg-*.example.org", ".lab.test", "xn--bcher-kva.example")
ADDRESSES = ("10.1.2.3", "fd00::1")


def patterns(*texts: str) -> list[HostPattern]:
    return [HostPattern.parse(f"[{text}]" if "::" in text else text) for text in texts]


def limited(directory: Path, *hosts: str) -> Authority:
    directory.mkdir()
    now = dt.datetime.now(dt.UTC)
    return create(directory / "ca.crt", directory / "ca.key", now, name_constraints(patterns(*hosts)))


@pytest.fixture(scope="module")
def of_names(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return a CA that knows names only."""
    return limited(tmp_path_factory.mktemp("ca") / "names", *NAMES)


@pytest.fixture(scope="module")
def of_addresses(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Return a CA that knows addresses, too."""
    return limited(tmp_path_factory.mktemp("ca") / "addresses", *NAMES, *ADDRESSES)


def accepted(authority: Authority, host: str, directory: Path) -> bool:
    """Whether OpenSSL accepts a leaf for the host."""
    key = ec.generate_private_key(ec.SECP256R1())
    leaf = issue_leaf(authority, key, host, dt.datetime.now(dt.UTC))
    (directory / "leaf.pem").write_bytes(leaf.public_bytes(Encoding.PEM))
    (directory / "ca.pem").write_bytes(authority.chain_pem)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "ca.pem", "leaf.pem"]
    return subprocess.run(command, cwd=directory, capture_output=True, check=False).returncode == 0


WITHIN = (
    *BUILT_IN_HOSTS,
    "quay.io",
    "cdn.quay.io",
    "1.dkr.ecr.eu-1.amazonaws.com",
    "reg-1.example.org",
    "a.b.lab.test",
)
OUTSIDE = ("example.com", "notquay.io", "quay.io.evil.example", "docker.io", "google.com", "bcher-kva.example")


@pytest.mark.parametrize("host", [*WITHIN, "lab.test", "xn--bcher-kva.example"])
def test_a_configured_host_is_accepted(of_names: Authority, tmp_path: Path, host: str) -> None:
    """Docker Hub, what is listed, and what a pattern covers."""
    assert accepted(of_names, host, tmp_path)
    assert allows_host(of_names.certificate, host)


@pytest.mark.parametrize("host", [*OUTSIDE, *ADDRESSES, "127.0.0.1"])
def test_any_other_host_is_refused(of_names: Authority, tmp_path: Path, host: str) -> None:
    """The key is no use to a thief for other names, nor for any address."""
    assert not accepted(of_names, host, tmp_path)
    assert not allows_host(of_names.certificate, host)


@pytest.mark.parametrize(
    ("host", "is_accepted"),
    [("10.1.2.3", True), ("fd00::1", True), ("10.1.2.4", False), ("::1", False), ("quay.io", True), ("a.org", False)],
)
def test_addresses_are_permitted_one_by_one(
    of_addresses: Authority, tmp_path: Path, host: str, is_accepted: bool
) -> None:
    """A listed address does not open the others; OpenSSL would hold a common name `10.1.2.3` against the names."""
    assert accepted(of_addresses, host, tmp_path) is is_accepted
    assert allows_host(of_addresses.certificate, host) is is_accepted


def test_the_constraints_are_critical(of_names: Authority) -> None:
    """A client that does not know them must not trust the CA (RFC 5280 section 4.2.1.10)."""
    assert of_names.certificate.extensions.get_extension_for_class(x509.NameConstraints).critical


def test_a_new_ca_is_not_limited_without_the_setting(tmp_path: Path) -> None:
    """Hosts that are listed later go on working."""
    made = create(tmp_path / "ca.crt", tmp_path / "ca.key", dt.datetime.now(dt.UTC))

    with pytest.raises(x509.ExtensionNotFound):
        made.certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert hosts_outside(made.certificate, patterns("example.com", "registry.*")) == ()


def test_python_keeps_to_it(of_names: Authority) -> None:
    """A handshake with Python's ssl succeeds for a host within, and fails for one outside."""
    certificates = Certificates()
    certificates.authority = of_names

    def connect(host: str) -> None:
        shake_hands(TlsClient(host, of_names), accept(certificates.context_for(host, dt.datetime.now(dt.UTC))))

    connect("quay.io")
    with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree violation"):
        connect("example.com")


def test_a_pattern_without_an_end_cannot_limit() -> None:
    """`registry.*` would be every name; the error names it and the remedy."""
    with pytest.raises(UnlimitedPatternError, match=r"registry\.\*.*CA_NAME_CONSTRAINTS=false"):
        name_constraints(patterns("quay.io", "registry.*"))


def test_hosts_that_came_later_are_told(of_names: Authority) -> None:
    """An exception is nobody's leaf, and a pattern is outside if its end is."""
    asked = patterns("quay.io", "ghcr.io", "*.amazonaws.com", "registry.*", "10.0.0.1")
    excepted = HostPattern("excepted.example", tunnelled=True)

    outside = hosts_outside(of_names.certificate, [*asked, excepted])

    assert outside == ("ghcr.io", "registry.*", "10.0.0.1")
