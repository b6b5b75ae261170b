"""Squid with ssl_bump: a forward proxy that terminates TLS with leaves of its own CA and caches what it sees."""

import os
import shutil
import subprocess
from pathlib import Path

from bench.peers.base import Peer, Programs, Site, through_forward_proxy
from lab.addresses import Address, free_port
from lab.programs import LabError, Program

_PROGRAM = "/usr/sbin/squid"
_CERTGEN = "/usr/lib/squid/security_file_certgen"
_USER = "proxy"
_LIMIT_S = 30

_CONFIGURATION = """
http_port {address} ssl-bump generate-host-certificates=on dynamic_cert_mem_cache_size=4MB tls-cert={ca} tls-key={key}
sslcrtd_program {certgen} -s {directory}/certificates -M 4MB
sslcrtd_children 4 startup=1 idle=1
ssl_bump bump all
tls_outgoing_options cafile={upstream_ca}
hosts_file {directory}/hosts
acl SSL_ports port 1-65535
http_access allow localhost
http_access deny all
maximum_object_size 4 GB
maximum_object_size_in_memory 512 KB
cache_mem 64 MB
cache_dir aufs {directory}/cache 32768 16 256
collapsed_forwarding on
refresh_pattern . 1440 50% 86400 override-expire override-lastmod ignore-private ignore-reload
access_log stdio:{directory}/access.log
cache_log {directory}/cache.log
cache_store_log none
pid_filename {directory}/squid.pid
coredump_dir {directory}
netdb_filename none
pinger_enable off
shutdown_lifetime 0 seconds
max_filedescriptors 4096
{user}
"""


def _start(site: Site) -> Programs:
    directory = site.directory
    directory.mkdir(parents=True, exist_ok=True)
    address = Address("127.0.0.1", free_port())
    ca, key = _make_ca(directory)
    hosts = (f"{address.host} {door.value}\n" for door, address in site.upstream.addresses.items())
    (directory / "hosts").write_text("127.0.0.1 localhost\n" + "".join(hosts))
    (directory / "squid.conf").write_text(
        _CONFIGURATION.format(
            address=address,
            ca=ca,
            key=key,
            certgen=_CERTGEN,
            directory=directory,
            upstream_ca=site.upstream.pki.ca_file,
            user=f"cache_effective_user {_USER}" if os.geteuid() == 0 else "",
        )
    )
    _run([_CERTGEN, "-c", "-s", str(directory / "certificates"), "-M", "4MB"], directory)
    _give_to_user(directory)
    _run([_PROGRAM, "-z", "-N", "-f", str(directory / "squid.conf")], directory)
    program = Program("squid", [_PROGRAM, "-N", "-f", str(directory / "squid.conf")], directory, listens_on=address)
    return Programs(site, through_forward_proxy(site, address, ca), [program]).start()


def _make_ca(directory: Path) -> tuple[Path, Path]:
    certificate, key = directory / "ca.crt", directory / "ca.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-days", "30", "-subj", "/CN=Bench Squid CA", "-keyout", str(key), "-out", str(certificate)]
    _run([*command, "-addext", "keyUsage=critical,keyCertSign,cRLSign"], directory)
    return certificate, key


def _give_to_user(directory: Path) -> None:
    """Squid refuses to run as root and changes to its user, who must reach the folder."""
    if os.geteuid() != 0:
        return
    for path in (directory, *directory.rglob("*")):
        shutil.chown(path, _USER, _USER)


def _run(command: list[str], directory: Path) -> None:
    completed = subprocess.run(  # noqa: S603 - programs of Debian
        command,
        cwd=directory,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_LIMIT_S,
        check=False,
    )
    if completed.returncode != 0:
        raise LabError(f"{' '.join(command)}: exit code {completed.returncode}\n{completed.stderr}")


SQUID = Peer(
    name="squid",
    start=_start,
    difference=(
        "`ssl_bump bump all`, one process, `collapsed_forwarding on` and a `refresh_pattern` that keeps everything for "
        "a day; both are off by default. Its leaf key is RSA 2048."
    ),
)
