"""The part of the table that is about limits: of times, and of connections."""

from regproxy.settings.setting import Setting

LIMITS: tuple[Setting, ...] = (
    Setting(variable="SEND_TIMEOUT", default="60s", meaning="Longest pause between two writes to a client"),
    Setting(
        variable="CLIENT_BODY_TIMEOUT",
        default="60s",
        meaning="Longest pause between two reads of a request body",
    ),
    Setting(
        variable="CLIENT_HEADER_TIMEOUT",
        default="60s",
        meaning="Longest time for a head to arrive: of a CONNECT, a TLS handshake, a request",
    ),
    Setting(
        variable="KEEPALIVE_TIMEOUT",
        default="300s",
        meaning="How long a client's connection may stay without a request",
    ),
    Setting(
        variable="DRAIN_TIMEOUT",
        default="2s",
        meaning="How long answers that run may take to end after TERM, while new connections are refused; 0 cuts them "
        "at once; see [docs/shared-store.md](docs/shared-store.md#updates)",
    ),
    Setting(
        variable="MAX_CONNECTIONS",
        default="10000",
        meaning="Most connections of clients at once, as far as the limit of open files allows; 0 for that limit "
        "alone; a further one gets 503",
    ),
    Setting(
        variable="MAX_CONNECTIONS_PER_CLIENT",
        default="5000",
        meaning="Most of them from one address; 0 for no limit",
    ),
    Setting(variable="PROXY_CONNECT_TIMEOUT", default="60s", meaning="Longest time to connect to an upstream"),
    Setting(
        variable="PROXY_SEND_TIMEOUT",
        default="60s",
        meaning="Longest pause between two writes to an upstream",
    ),
    Setting(
        variable="PROXY_READ_TIMEOUT",
        default="60s",
        meaning="Longest pause between two reads from an upstream; the answer to a push has at least 900 s",
    ),
    Setting(
        variable="PROXY_CONNECT_CONNECT_TIMEOUT",
        default="60s",
        meaning="Longest time to connect for a tunnel to other hosts",
    ),
    Setting(
        variable="PROXY_CONNECT_READ_TIMEOUT",
        default="60s",
        meaning="Longest silence in a tunnel to other hosts",
    ),
)
