"""mitmdump as it comes, streaming bodies: the engine that we build on, without us. It caches nothing."""

import os
import sys
from pathlib import Path

from bench.peers.base import Peer, Programs, Site, through_forward_proxy
from bench.upstream import mappings
from lab.addresses import Address, free_port
from lab.programs import Program

_STREAM_FROM = "64k"


def _start(site: Site) -> Programs:
    address = Address("127.0.0.1", free_port())
    site.directory.mkdir(parents=True, exist_ok=True)
    interpreter_directory = Path(sys.executable).parent
    options = {
        "confdir": str(site.directory),
        "stream_large_bodies": _STREAM_FROM,
        "ssl_verify_upstream_trusted_ca": str(site.upstream.pki.ca_file),
    }
    command = [str(interpreter_directory / "mitmdump"), "--quiet"]
    command += ["--listen-host", address.host, "--listen-port", str(address.port)]
    command += ["--scripts", str(Path(__file__).with_name("mitmdump_names.py"))]
    for name, text in options.items():
        command += ["--set", f"{name}={text}"]
    environment = {
        "PATH": f"{interpreter_directory}:{os.defpath}",
        "HOME": str(site.directory),
        "LANG": "C.UTF-8",
        "BENCH_MAPPINGS": " ".join(mappings(site.upstream.addresses)),
    }
    program = Program("mitmdump", command, site.directory, environment=environment, listens_on=address)
    targets = through_forward_proxy(site, address, site.directory / "mitmproxy-ca-cert.pem")
    return Programs(site, targets, [program]).start()


MITMDUMP = Peer(
    name="mitmdump",
    start=_start,
    caches=False,
    difference=(
        f"Plain, with `stream_large_bodies={_STREAM_FROM}` and `--quiet`; it caches nothing, so every request goes on "
        "to the upstream. A script of five lines replaces the DNS. Its leaf key is RSA 2048."
    ),
)
