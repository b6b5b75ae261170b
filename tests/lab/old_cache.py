"""Predecessors: Debian's nginx with the cache of rpardini's or gmarcy's registry proxy, and a look into its files.

The directives that decide what lies on the disk are the predecessor's (contract sections 1.4 and 1.8): the path's
levels, the key `$uri`, what is valid how long, and redirects that are stored under the key of the first request.
CONNECT and TLS in front of it are left out: clients reach it by plain HTTP.
"""

import hashlib
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from lab.addresses import Address, free_port
from lab.programs import Program, find_program

_HEADER = struct.Struct("<QqqqqqIHHHB128sB128s16s")
_PADDING_BYTES = 4
"""nginx's ngx_http_file_cache_header_t, version 5."""

_CONFIGURATION = """
daemon off; master_process off; worker_processes 1;
pid {directory}/nginx.pid; error_log {directory}/error.log warn;
events {{ worker_connections 1024; }}
http {{
  default_type application/octet-stream; access_log off;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxied;
  fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  proxy_cache_path {cache} levels=1:2 max_size=32g inactive=60d keys_zone=cache:10m use_temp_path=off;
  server {{
    listen {address};
    proxy_cache_lock on; proxy_cache_lock_timeout 880s; proxy_cache_valid 200 206 60d;
    proxy_force_ranges on; proxy_ignore_client_abort on; proxy_cache_revalidate on;
    proxy_hide_header Set-Cookie; proxy_ignore_headers X-Accel-Expires Expires Cache-Control Set-Cookie;
    proxy_ssl_server_name on; proxy_ssl_name {name}; proxy_set_header Host {name};
    location ~ ^/v2/(.*)/blobs/sha256:(.*) {{ set $cache_key {blob_key}; {cached} }}
    location ~ ^/v2/(.*)/manifests/sha256:(.*) {{ set $cache_key {manifest_key}; {cached} }}
    location ~ ^/v2/(.*)/manifests/ {{ set $cache_key $uri; proxy_cache_valid 1h; {cached} }}
    location @handle_redirects {{
      set $orig_loc $upstream_http_location;
      proxy_set_header Authorization ""; proxy_set_header Host {cdn_name}; proxy_ssl_name {cdn_name};
      proxy_pass https://{cdn}$cdn_target; proxy_cache cache; proxy_cache_key $cache_key{slice};
    }}
    location / {{ proxy_pass https://{upstream}; proxy_cache off; }}
  }}
  map $orig_loc $cdn_target {{ "~^https://[^/]+(?<target>/.*)$" $target; }}
}}
"""
_CACHED = """proxy_pass https://{upstream}; proxy_cache cache; proxy_cache_key $cache_key{slice}; {sliced}
      proxy_intercept_errors on; error_page 301 302 307 = @handle_redirects;"""
_SLICED = """slice 1m; proxy_set_header Range $slice_range; proxy_set_header Host {name}; proxy_http_version 1.1;
      proxy_cache_convert_head off;"""


@dataclass(frozen=True, slots=True)
class Kind:
    """What a predecessor's cache is like."""

    blob_key: str
    manifest_key: str
    slices: bool


RPARDINI = Kind("$uri", "$uri", slices=False)
COREWEAVE = Kind("$uri", "$uri", slices=True)
GMARCY = Kind("$request_method$2", "$request_method$uri", slices=True)
"""Slices of 1 MiB instead of 4, so that small layers have several."""


class Predecessor:
    """An nginx that caches one registry of the lab in `cache_directory`. Use it as a context manager."""

    def __init__(
        self,
        directory: Path,
        cache_directory: Path,
        registry: tuple[str, Address],
        cdn: tuple[str, Address],
        kind: Kind = RPARDINI,
    ) -> None:
        self.address = Address("127.0.0.1", free_port())
        self.cache_directory = cache_directory
        directory.mkdir(parents=True)
        cache_directory.mkdir(parents=True, exist_ok=True)
        slice_range = "$slice_range" if kind.slices else ""
        sliced = _SLICED.format(name=registry[0]) if kind.slices else ""
        (directory / "nginx.conf").write_text(
            _CONFIGURATION.format(
                directory=directory,
                cache=cache_directory,
                address=self.address,
                name=registry[0],
                upstream=registry[1],
                cdn_name=cdn[0],
                cdn=cdn[1],
                blob_key=kind.blob_key,
                manifest_key=kind.manifest_key,
                slice=slice_range,
                cached=_CACHED.format(upstream=registry[1], slice=slice_range, sliced=sliced),
            )
        )
        self._program = Program(
            "predecessor",
            [find_program("nginx"), "-p", str(directory), "-c", "nginx.conf", "-e", str(directory / "error.log")],
            directory,
            listens_on=self.address,
        )

    def __enter__(self) -> Self:
        self._program.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._program.stop()


def cache_file(cache_directory: Path, key: str) -> Path:
    """Return where nginx keeps what it stores under a key, with levels=1:2."""
    name = hashlib.md5(key.encode(), usedforsecurity=False).hexdigest()
    return cache_directory / name[-1] / name[-3:-1] / name


def write_cache_file(
    cache_directory: Path, key: str, body: bytes, content_type: str | None = None, *, version: int = 5
) -> Path:
    """Write a file as nginx writes it for an answer 200, and return its path."""
    fields = b"" if content_type is None else f"Content-Type: {content_type}\r\n".encode()
    answer_head = b"HTTP/1.1 200 OK\r\nServer: nginx\r\n" + fields + b"Connection: close\r\n\r\n"
    line = f"\nKEY: {key}\n".encode()
    head_start = _HEADER.size + _PADDING_BYTES + len(line)
    header = _HEADER.pack(
        version,
        0,
        0,
        0,
        0,
        0,
        zlib.crc32(key.encode()),
        0,
        head_start,
        head_start + len(answer_head),
        0,
        b"",
        0,
        b"",
        b"",
    )
    file = cache_file(cache_directory, key)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(header + bytes(_PADDING_BYTES) + line + answer_head + body)
    return file


def tree_bytes(cache_directory: Path) -> dict[str, bytes]:
    """Return the old cache's files, name and bytes."""
    return {str(path.relative_to(cache_directory)): path.read_bytes() for path in cache_directory.glob("?/??/*")}
