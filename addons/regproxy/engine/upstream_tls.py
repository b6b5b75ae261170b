"""TLS to upstreams whose certificate the operator does not want verified, for connections that mitmproxy opens."""

import ipaddress

from OpenSSL import SSL


def unverified(name: str) -> SSL.Connection:
    """Return the client end of a TLS connection that takes any certificate; `name` is sent unless it is an address."""
    context = SSL.Context(SSL.TLS_CLIENT_METHOD)
    context.set_verify(SSL.VERIFY_NONE, None)
    client = SSL.Connection(context)
    try:
        ipaddress.ip_address(name)
    except ValueError:
        # RFC 6066 section 3: literal addresses are not permitted in server_name.
        client.set_tlsext_host_name(name.encode("idna"))
    client.set_connect_state()
    return client
