"""Leaves that strict clients accept, made once per host and renewed in time."""

import datetime as dt
import ssl

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from mitmproxy import options
from mitmproxy.tls import TlsData
from OpenSSL import SSL

from regproxy.engine import certificates as certificates_module
from regproxy.engine.authority import Authority
from regproxy.engine.certificates import SSL_MODE_ENABLE_PARTIAL_WRITE, Certificates, issue_leaf
from unit.engine.layer_driver import new_context
from unit.engine.tls_pair import TlsClient, accept, shake_hands

LONG_HOST = ".".join(["a" * 60] * 4)


def now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def leaf_of(context: SSL.Context, authority: Authority) -> x509.Certificate:
    """Return the certificate that a client is shown, whether or not it would like it."""
    client = TlsClient("unchecked", authority)
    client.context.check_hostname = False
    client.context.verify_mode = ssl.CERT_NONE
    shake_hands(client, accept(context))
    shown = client.tls.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown)


@pytest.mark.parametrize(
    "host", ["quay.io", "registry-1.docker.io", "localhost", "my_registry.lan", "10.0.0.7", "::1", LONG_HOST]
)
def test_a_strict_client_verifies_the_leaf(certificates: Certificates, authority: Authority, host: str) -> None:
    """OpenSSL with X509_STRICT and host name check accepts names, IP addresses and names longer than a common name."""
    client = TlsClient(host, authority)

    shake_hands(client, accept(certificates.context_for(host, now())))

    assert client.connected
    assert client.tls.version() == "TLSv1.3"


def test_a_leaf_is_for_its_host_alone(certificates: Certificates, authority: Authority) -> None:
    """A client that wants another name refuses it."""
    server = accept(certificates.context_for("quay.io", now()))

    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(TlsClient("ghcr.io", authority), server)


@pytest.mark.parametrize(
    ("offered", "chosen"), [(("h2", "http/1.1"), "http/1.1"), (("http/1.1",), "http/1.1"), (("h2",), None), ((), None)]
)
def test_only_http_1_1_is_agreed_on(
    certificates: Certificates, authority: Authority, offered: tuple[str, ...], chosen: str | None
) -> None:
    """The sender cannot write HTTP/2; a client that offers nothing else still gets a connection."""
    client = TlsClient("quay.io", authority, offered)

    shake_hands(client, accept(certificates.context_for("quay.io", now())))

    assert client.tls.selected_alpn_protocol() == chosen


def test_tls_1_2_is_spoken_and_nothing_older(certificates: Certificates, authority: Authority) -> None:
    """Old clients of 1.2 are served; the context refuses 1.1."""
    client = TlsClient("quay.io", authority)
    client.context.maximum_version = ssl.TLSVersion.TLSv1_2
    context = certificates.context_for("quay.io", now())

    shake_hands(client, accept(context))

    assert client.tls.version() == "TLSv1.2"
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        client.context.minimum_version = client.context.maximum_version = ssl.TLSVersion.TLSv1_1
    client.context.set_ciphers("ALL:@SECLEVEL=0")
    old = TlsClient("quay.io", authority)
    old.context = client.context
    with pytest.raises((ssl.SSLError, SSL.Error)):
        shake_hands(old, accept(context))


def test_a_context_is_made_once_until_its_leaf_comes_of_age(certificates: Certificates, authority: Authority) -> None:
    """One context serves for 169 days; then a new leaf with the full time takes its place, before the old one ends."""
    start = now()
    first = certificates.context_for("quay.io", start)

    assert certificates.context_for("quay.io", start + dt.timedelta(days=168)) is first
    later = start + dt.timedelta(days=169, seconds=1)
    second = certificates.context_for("quay.io", later)

    assert second is not first
    old, new = leaf_of(first, authority), leaf_of(second, authority)
    assert old.not_valid_after_utc > later + dt.timedelta(days=29)
    assert new.not_valid_after_utc > later + dt.timedelta(days=198)
    assert new.serial_number != old.serial_number
    assert certificates.context_for("quay.io", later) is second


def test_a_leaf_does_not_outlive_its_authority(authority: Authority) -> None:
    """A client would refuse the chain from then on anyway, with a worse message."""
    ends = authority.certificate.not_valid_after_utc
    key = ec.generate_private_key(ec.SECP256R1())

    leaf = issue_leaf(authority, key, "quay.io", ends - dt.timedelta(days=3))

    assert leaf.not_valid_after_utc == ends


def test_names_that_a_client_makes_up_do_not_fill_the_memory(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the cap the host that was not asked for the longest is forgotten."""
    monkeypatch.setattr(certificates_module, "CONTEXTS", 3)
    at = now()
    kept = certificates.context_for("kept.example", at)
    forgotten = certificates.context_for("forgotten.example", at)
    certificates.context_for("third.example", at)
    certificates.context_for("kept.example", at)
    certificates.context_for("fourth.example", at)

    assert certificates.context_for("kept.example", at) is kept
    assert certificates.context_for("forgotten.example", at) is not forgotten
    assert len(certificates._ready) == 3


def test_partial_writes_are_off(certificates: Certificates) -> None:
    """Pins pyOpenSSL: its contexts return from SSL_write after one record of 16 KiB, ours after the whole chunk."""
    assert SSL.Context(SSL.TLS_SERVER_METHOD).set_mode(0) & SSL_MODE_ENABLE_PARTIAL_WRITE

    assert not certificates.context_for("quay.io", now()).set_mode(0) & SSL_MODE_ENABLE_PARTIAL_WRITE


async def test_an_intercepted_connection_gets_the_leaf_of_its_authority(
    certificates: Certificates, authority: Authority, opts: options.Options
) -> None:
    """The name is the one in CONNECT, not the SNI: both are the client's word, but only one was checked."""
    context = new_context(opts)
    context.client.sni = "evil.example"
    context.server.address = ("quay.io", 443)
    start = TlsData(context.client, context)

    certificates.tls_start_client(start)

    assert isinstance(start.ssl_conn, SSL.Connection)
    client = TlsClient("quay.io", authority)
    shake_hands(client, start.ssl_conn)
    assert client.connected


@pytest.mark.parametrize("case", ["answered", "no authority"])
async def test_other_connections_are_left_alone(certificates: Certificates, opts: options.Options, case: str) -> None:
    """What another addon has answered, and everything before the start."""
    context = new_context(opts)
    context.server.address = ("quay.io", 443)
    start = TlsData(context.client, context)
    start.ssl_conn = SSL.Connection(SSL.Context(SSL.TLS_METHOD)) if case == "answered" else None
    before = start.ssl_conn
    if case == "no authority":
        certificates.authority = None

    certificates.tls_start_client(start)

    assert start.ssl_conn is before


@pytest.mark.parametrize(
    ("sni", "name"),
    [("proxy.test", "proxy.test"), ("Proxy.TEST", "proxy.test"), (None, "192.0.2.1"), ("a b", "192.0.2.1")],
)
async def test_the_proxy_itself_has_the_name_that_the_client_uses(
    certificates: Certificates, authority: Authority, opts: options.Options, sni: str | None, name: str
) -> None:
    """Without a CONNECT: by SNI, else by the address that it came to; addresses are never in SNI."""
    context = new_context(opts)
    context.server.address, context.client.sni = None, sni
    start = TlsData(context.client, context)

    certificates.tls_start_client(start)

    assert start.ssl_conn is not None
    shake_hands(TlsClient(name, authority), start.ssl_conn)
