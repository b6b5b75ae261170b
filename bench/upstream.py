"""The registry that all proxies stand before: nginx with static files, by three doors.

`FAST` and `SLOW` speak TLS, `PLAIN` does not; `SLOW` gives each connection 40 MB/s, as CDNs limit each connection.
Static files are the quickest upstream there is, so what a row shows is the proxy's doing. It asks for no token and
redirects nothing: these cost an exchange before the first byte and say nothing about the data path.
"""

import enum
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.sizes import UPSTREAM_RATE_BYTES_PER_S
from lab.addresses import TLS_PORT, Address
from lab.image import Image
from lab.pki import Pki
from lab.programs import Program, find_program

_PIECE_BYTES = 1 << 20
_LOG_SETTLES_S = 0.05
"""nginx writes a request's line a moment after its last byte."""


class Door(enum.Enum):
    """How the upstream is reached; the value is its name."""

    FAST = "registry.bench.test"
    SLOW = "slow.bench.test"
    PLAIN = "plain.bench.test"

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return "http" if self is Door.PLAIN else "https"

    @property
    def authority(self) -> str:
        """Name and port, as clients of a forward proxy write it."""
        return f"{self.value}:{TLS_PORT}"


_CONFIGURATION = """
daemon off; worker_processes auto; {user}
pid {directory}/nginx.pid; error_log {directory}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  default_type application/octet-stream; server_tokens off; sendfile on; tcp_nopush on; etag on;
  keepalive_timeout 300s; keepalive_requests 1000000;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxied;
  fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  log_format requests '$request_method $request_uri $status $body_bytes_sent "$http_range"';
  access_log {directory}/requests.log requests;
  ssl_certificate {pki.certificate_file}; ssl_certificate_key {pki.key_file};
  add_header Docker-Distribution-Api-Version registry/2.0 always;
  server {{ listen {fast} ssl; {locations} }}
  server {{ listen {plain}; {locations} }}
  server {{ listen {slow} ssl; limit_rate {rate}; {locations} }}
}}
"""
_LOCATIONS = """
    location = /v2/ { default_type application/json; return 200 "{}"; }
    location ~ ^/v2/.+/blobs/sha256: { root %s; add_header Cache-Control "max-age=31536000"; %s }
"""
_MANIFEST_LOCATION = """
    location = {path} {{ alias {file}; default_type {media_type}; add_header Docker-Content-Digest {digest};
      add_header Docker-Distribution-Api-Version registry/2.0; }}
"""
_BLOB_FIELDS = "add_header Docker-Distribution-Api-Version registry/2.0;"


class Upstream:
    """The registry's files and its server. Add content before `start`."""

    def __init__(self, directory: Path, pki: Pki, addresses: Mapping[Door, Address]) -> None:
        self.addresses = addresses
        self.pki = pki
        self._directory = directory
        self._manifests: list[str] = []
        self._root = directory / "files"
        self._root.mkdir(parents=True)
        self._program = Program(
            "nginx",
            [find_program("nginx"), "-p", str(directory), "-c", "nginx.conf", "-e", str(directory / "error.log")],
            directory,
            listens_on=addresses[Door.FAST],
        )
        self._log_file = directory / "requests.log"

    def add_blob(self, repository: str, size_bytes: int) -> str:
        """Write a blob of random bytes and return its path."""
        blobs = self._blob_directory(repository)
        checksum = hashlib.sha256()
        with (blobs / "incoming").open("wb") as target:
            for start in range(0, size_bytes, _PIECE_BYTES):
                piece = os.urandom(min(_PIECE_BYTES, size_bytes - start))
                checksum.update(piece)
                target.write(piece)
        (blobs / "incoming").rename(blobs / f"sha256:{checksum.hexdigest()}")
        return f"/v2/{repository}/blobs/sha256:{checksum.hexdigest()}"

    def add_image(self, repository: str, image: Image, tag: str) -> None:
        """Serve an image by tag and by digest."""
        blobs = self._blob_directory(repository)
        for digest in image.blobs:
            (blobs / digest).hardlink_to(image.file(digest))
        for reference in (tag, image.digest):
            self._manifests.append(
                _MANIFEST_LOCATION.format(
                    path=f"/v2/{repository}/manifests/{reference}",
                    file=image.file(image.digest),
                    media_type=image.media_type,
                    digest=image.digest,
                )
            )

    def start(self) -> None:
        """Write the configuration and listen."""
        locations = _LOCATIONS % (self._root, _BLOB_FIELDS) + "".join(self._manifests)
        (self._directory / "nginx.conf").write_text(
            _CONFIGURATION.format(
                directory=self._directory,
                user=nginx_user(),
                pki=self.pki,
                fast=self.addresses[Door.FAST],
                slow=self.addresses[Door.SLOW],
                plain=self.addresses[Door.PLAIN],
                rate=UPSTREAM_RATE_BYTES_PER_S,
                locations=locations,
            )
        )
        self._program.start()

    def stop(self) -> None:
        """Stop it."""
        self._program.stop()

    def mark(self) -> int:
        """Return this moment, for `gets_since`."""
        time.sleep(_LOG_SETTLES_S)
        return self._log_file.stat().st_size

    def gets_since(self, mark: int, path: str) -> int:
        """Return how many GETs for a path have reached it since a mark."""
        time.sleep(_LOG_SETTLES_S)
        wanted = f"GET {path} ".encode()
        with self._log_file.open("rb") as log:
            log.seek(mark)
            return sum(line.startswith(wanted) for line in log)

    def _blob_directory(self, repository: str) -> Path:
        blobs = self._root / "v2" / repository / "blobs"
        blobs.mkdir(parents=True, exist_ok=True)
        return blobs


def nginx_user() -> str:
    """Return the directive that lets workers read a private folder: started by root they change to another user."""
    return "user root;" if os.geteuid() == 0 else ""


def mappings(addresses: Mapping[Door, Address]) -> Sequence[str]:
    """Return `name=address:port` for each door."""
    return [f"{door.value}={address}" for door, address in addresses.items()]
