"""docker-registry in pull-through mode. One process stands before one upstream only, so each door has its own."""

import json
import os

from bench.peers.base import Peer, Programs, Site, instead_of_upstream
from bench.upstream import Door
from lab.addresses import Address
from lab.programs import Program, find_program


def _start(site: Site) -> Programs:
    addresses = {door: site.addresses.take() for door in site.doors}
    programs = [_program(site, door, address) for door, address in addresses.items()]
    return Programs(site, instead_of_upstream(site, addresses), programs).start(addresses.values())


def _program(site: Site, door: Door, address: Address) -> Program:
    pki = site.upstream.pki
    directory = site.directory / door.name.lower()
    directory.mkdir(parents=True)
    front: dict[str, object] = {"addr": str(address), "secret": "bench"}
    if door is not Door.PLAIN:
        front["tls"] = {"certificate": str(pki.certificate_file), "key": str(pki.key_file)}
    configuration = {
        "version": "0.1",
        "log": {"level": "warn"},
        "http": front,
        "storage": {
            "filesystem": {"rootdirectory": str(directory / "storage")},
            "cache": {"blobdescriptor": "inmemory"},
        },
        "proxy": {"remoteurl": f"{door.scheme}://{site.upstream.addresses[door]}"},
    }
    (directory / "registry.json").write_text(json.dumps(configuration))  # JSON is YAML
    environment = {"PATH": os.defpath, "SSL_CERT_FILE": str(pki.ca_file)}
    command = [find_program("docker-registry"), "serve", str(directory / "registry.json")]
    return Program("docker-registry", command, directory, environment=environment, listens_on=address)


DOCKER_REGISTRY = Peer(
    name="docker-registry",
    start=_start,
    difference=(
        "A mirror in the registry's place: no CONNECT. It stands before one upstream only; there is one process for "
        "the TLS rows and one for the plain row, and its memory is that of both. It asks the upstream about a tag each "
        "time."
    ),
)
