"""TLS between a client that verifies and one of our server connections, both working on memory."""

import ssl

from OpenSSL import SSL

from regproxy.engine.authority import Authority


class TlsClient:
    """A strict client: it trusts our CA alone, checks the name, and offers HTTP/2 before HTTP/1.1."""

    def __init__(self, host: str, authority: Authority, alpn: tuple[str, ...] = ("h2", "http/1.1")) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cadata=authority.chain_pem.decode())
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        if alpn:
            context.set_alpn_protocols(list(alpn))
        self.context = context
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._host = host
        self._tls: ssl.SSLObject | None = None
        self.connected = False
        self.heard_goodbye = False
        """Whether the server has ended TLS, and not only the connection."""

    @property
    def tls(self) -> ssl.SSLObject:
        """Python's TLS object, made at first use so that a test may change `context` before."""
        if self._tls is None:
            self._tls = self.context.wrap_bio(self._incoming, self._outgoing, server_hostname=self._host)
        return self._tls

    def step(self, from_server: bytes = b"") -> bytes:
        """Go on with the handshake; returns what is to be sent. Raises ssl.SSLError when the server is not trusted."""
        self._incoming.write(from_server)
        if not self.connected:
            try:
                self.tls.do_handshake()
                self.connected = True
            except ssl.SSLWantReadError:
                pass
        return self._outgoing.read()

    def encrypt(self, plaintext: bytes) -> bytes:
        """Return the records of some plaintext."""
        self.tls.write(plaintext)
        return self.encrypted()

    def encrypted(self) -> bytes:
        """Return what is to be sent."""
        return self._outgoing.read()

    def decrypt(self, ciphertext: bytes) -> bytes:
        """Return all plaintext that can be read by now."""
        self._incoming.write(ciphertext)
        plaintext = bytearray()
        while True:
            try:
                piece = self.tls.read(1 << 20)
            except ssl.SSLWantReadError:
                return bytes(plaintext)
            except ssl.SSLZeroReturnError:  # both ends have said it
                piece = b""
            if not piece:
                self.heard_goodbye = True
                return bytes(plaintext)
            plaintext += piece


def accept(context: SSL.Context) -> SSL.Connection:
    """Return the server's end of a connection."""
    server = SSL.Connection(context)
    server.set_accept_state()
    return server


def shake_hands(client: TlsClient, server: SSL.Connection) -> None:
    """Run the handshake to its end. Raises ssl.SSLError or SSL.Error."""
    to_server, done = client.step(), False
    while to_server or not done:
        if to_server:
            server.bio_write(to_server)
        try:
            server.do_handshake()
            done = True
        except SSL.WantReadError:
            pass
        to_server = client.step(pending(server))


def pending(server: SSL.Connection) -> bytes:
    """Return the bytes that the server has for the client."""
    try:
        return server.bio_read(1 << 20)
    except SSL.WantReadError:
        return b""
