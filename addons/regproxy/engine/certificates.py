"""A leaf of our CA for every intercepted host, and one ready TLS context with it.

mitmproxy converts certificate and key anew for every connection (14 % of a small request in a profile) and keeps
leaves without a look at their expiry; here a host's context is made once and replaced before its leaf expires.
"""

import datetime as dt
import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from mitmproxy import connection
from mitmproxy import tls as mitmproxy_tls
from OpenSSL import SSL

from regproxy.engine.authority import Authority, SigningKey
from regproxy.oci.names import normalise_host

LEAF_LIFETIME = dt.timedelta(days=199)
"""Under the 200 days that public rules allow from March 2026 on; some clients apply them to private authorities."""

LEAF_RENEWAL = dt.timedelta(days=30)
"""A leaf with less than this left is replaced by a new one at the next connection; one that is made for a shorter time,
because its authority ends, when half of that is over."""

SSL_MODE_ENABLE_PARTIAL_WRITE = 0x1
"""OpenSSL's constant (SSL_CTX_set_mode(3)), which pyOpenSSL does not name."""

CONTEXTS = 1000
"""Hosts whose context is kept; wildcards could otherwise make a client fill the memory with names. About 40 kB each."""


@dataclass(frozen=True, slots=True)
class _Ready:
    context: SSL.Context
    renew_at: dt.datetime


class Certificates:
    """The addon that answers `tls_start_client` for connections the engine intercepts."""

    name = "registry-certificates"

    def __init__(self) -> None:
        self.authority: Authority | None = None
        self.on_client: Callable[[str], None] | None = None
        """Is told the address of each client that gets a leaf, while somebody wants to know."""
        self._key: SigningKey = ec.generate_private_key(ec.SECP256R1())
        self._ready: OrderedDict[str, _Ready] = OrderedDict()

    def tls_start_client(self, tls_start: mitmproxy_tls.TlsData) -> None:
        """Give a new client connection its OpenSSL object."""
        if tls_start.ssl_conn is not None or self.authority is None:
            return
        client, address = tls_start.context.client, tls_start.context.server.address
        host = _own_name(client) if address is None else address[0]
        context = self.context_for(host, dt.datetime.now(dt.UTC), client.peername[0])
        tls_start.ssl_conn = SSL.Connection(context)
        tls_start.ssl_conn.set_accept_state()

    def use(self, authority: Authority) -> None:
        """Sign with this authority from now on; connections that are open stay as they are."""
        self.authority = authority
        self._ready.clear()

    def context_for(self, host: str, now: dt.datetime, client_ip: str = "") -> SSL.Context:
        """Return the TLS context for `host`, making or renewing its leaf if need be."""
        if self.on_client is not None and client_ip:
            self.on_client(client_ip)
        ready = self._ready.get(host)
        if ready is None or ready.renew_at <= now:
            ready = self._make(host, now)
            self._ready[host] = ready
            if len(self._ready) > CONTEXTS:
                self._ready.popitem(last=False)
        self._ready.move_to_end(host)
        return ready.context

    def first_end_s(self) -> float | None:
        """Return when the leaf in use that ends first does so (Unix time); None without any."""
        return min(((ready.renew_at + LEAF_RENEWAL).timestamp() for ready in self._ready.values()), default=None)

    def _make(self, host: str, now: dt.datetime) -> _Ready:
        assert self.authority is not None
        leaf = issue_leaf(self.authority, self._key, host, now)
        context = SSL.Context(SSL.TLS_SERVER_METHOD)
        context.set_min_proto_version(SSL.TLS1_2_VERSION)
        context.set_options(SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        # pyOpenSSL sets it: SSL_write would return after each record of 16 KiB, and take the GIL back.
        context.clear_mode(SSL_MODE_ENABLE_PARTIAL_WRITE)
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)  # 34 kB less for a connection that waits
        context.set_alpn_select_callback(_http_1_1)
        context.use_certificate(leaf)
        context.use_privatekey(self._key)
        context.add_extra_chain_cert(self.authority.certificate)
        left = leaf.not_valid_after_utc - now
        return _Ready(context, leaf.not_valid_after_utc - min(LEAF_RENEWAL, left / 2))


def issue_leaf(
    authority: Authority, key: SigningKey, host: str, now: dt.datetime, *, also: Sequence[str] = ()
) -> x509.Certificate:
    """Return a server certificate for `host` (a name or an IP literal), which does not outlive its authority.

    `also` are further names that it is good for.
    """
    expires = min(now + LEAF_LIFETIME, authority.certificate.not_valid_after_utc)
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, _common_name(host))]))
        .issuer_name(authority.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # An authority that has ended while the proxy was up: clients are to be told that, not to lose the connection.
        .not_valid_before(min(now, expires) - dt.timedelta(days=1))
        .not_valid_after(expires)
        .add_extension(x509.SubjectAlternativeName([_alternative_name(name) for name in (host, *also)]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_authority_key_identifier(authority), critical=False)
        .sign(authority.key, hashes.SHA256())
    )


def _authority_key_identifier(authority: Authority) -> x509.AuthorityKeyIdentifier:
    """Return the CA's own identifier: OpenSSL takes another one for another CA (RFC 5280 section 4.2.1.1)."""
    try:
        own = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key())
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own.value)


def _own_name(client: connection.Client) -> str:
    """Return what a client calls the proxy itself: without a CONNECT nobody else knows; an address is never in SNI."""
    try:
        return normalise_host(client.sni or client.sockname[0])
    except ValueError:
        return str(client.sockname[0])


def _common_name(host: str) -> str:
    """Return what people read; clients look at the alternative name only.

    OpenSSL holds a common name that looks like a host against a CA's name constraints, and `10.0.0.1` looks like one.
    """
    is_name = isinstance(_alternative_name(host), x509.DNSName)
    return (host if is_name else f"address {host}")[:64]  # RFC 5280 ub-common-name


def _alternative_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _http_1_1(_connection: SSL.Connection, offers: list[bytes]) -> bytes | Any:
    """Choose HTTP/1.1: the sender writes bodies past HTTP's framing, which HTTP/2 does not allow."""
    return b"http/1.1" if b"http/1.1" in offers else SSL.NO_OVERLAPPING_PROTOCOLS
