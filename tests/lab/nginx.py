"""nginx in front of every lab upstream: TLS, one access log form, a speed limit, and the CDN.

One process for one server (`master_process off`): it answers in one thread, so a request that it has answered is in the
log before the answer to a later request leaves. That makes counting exact without waiting.
"""

import contextlib
import ssl
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from lab.access_log import AccessLog, LogFile
from lab.addresses import Address
from lab.http_client import Client, DirectRoute
from lab.pki import Pki
from lab.programs import Program, find_program

_SETTLED_PATH = "/-/settled"
_CONFIGURATION = """
daemon off; master_process off; worker_processes 1;
pid {directory}/nginx.pid; error_log {directory}/error.log warn;
events {{ worker_connections 1024; }}
http {{
  default_type application/octet-stream; server_tokens off; sendfile on;
  keepalive_timeout 300s; keepalive_requests 100000;
  client_max_body_size 0; client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxied;
  fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  map $http_authorization $authorization_scheme {{ default other; "" ""; "~^(?<word>[A-Za-z]+) " $word; }}
  map "$request_method $arg_verify" $is_signed {{ default 0; "~^(GET|HEAD) \\1-." 1; }}
  log_format requests escape=json '{{"method":"$request_method","target":"$request_uri","status":"$status",'
    '"body_bytes":"$body_bytes_sent","host":"$http_host","range":"$http_range",'
    '"authorization":"$authorization_scheme","user_agent":"$http_user_agent"}}';
  access_log {directory}/requests.log requests;
  server {{
    listen {address} ssl; server_name _; {limit_rate}
    ssl_certificate {pki.certificate_file}; ssl_certificate_key {pki.key_file};
    {refusal}
    location = {settled} {{ access_log off; return 204; }}
    {locations}
  }}
}}
"""


@dataclass(frozen=True, slots=True)
class Front:
    """Everything to a registry behind it; with `cdn_host`, redirects get a signature that changes each time.

    The registry's own redirect names https://CDN_HOST/file; the signature is for the method of the request, as S3's is.
    """

    backend: Address
    cdn_host: str | None = None
    manifest_headers: tuple[tuple[str, str], ...] = ()

    def locations(self) -> str:
        """Return the location blocks."""
        sign = "proxy_redirect off;"
        if self.cdn_host is not None:
            signature = "expires=$msec&verify=$request_method-$request_id"
            sign = f"proxy_redirect ~^(https://{self.cdn_host}/.*)$ $1?{signature};"
        # buffering, but never in a file: without it nginx ignores limit_rate
        forward = f"""proxy_pass http://{self.backend}; proxy_http_version 1.1; proxy_set_header Host $http_host;
          proxy_set_header X-Forwarded-Proto https; proxy_set_header Connection "";
          proxy_max_temp_file_size 0; proxy_request_buffering off; proxy_connect_timeout 2s; {sign}"""
        fields = " ".join(f'add_header {name} "{text}" always;' for name, text in self.manifest_headers)
        return f"location / {{ {forward} }} location ~ ^/v2/.+/manifests/ {{ {forward} {fields} }}"


@dataclass(frozen=True, slots=True)
class SignedFiles:
    """A CDN: the files of a folder for those who bring a signature, 400 to any Authorization as S3 and R2 answer."""

    directory: Path

    def locations(self) -> str:
        """Return the location blocks."""
        return f"""location / {{ root {self.directory}; etag on; add_header Cache-Control "public, max-age=14400";
          if ($http_authorization) {{ return 400 "Only one auth mechanism allowed\\n"; }}
          if ($is_signed = 0) {{ return 403 "Request has no valid signature\\n"; }} }}"""


class Nginx:
    """One TLS server; `start` after `stop` listens on the same address and continues the same log."""

    def __init__(self, address: Address, directory: Path, pki: Pki, content: Front | SignedFiles) -> None:
        self.address = address
        self._directory = directory
        self._pki = pki
        self._content = content
        self._rate_bytes_per_s: int | None = None
        self._refusal = ""
        directory.mkdir(parents=True)
        self._configuration_file = directory / "nginx.conf"
        self._program = Program(
            "nginx",
            [find_program("nginx"), "-p", str(directory), "-c", "nginx.conf", "-e", str(directory / "error.log")],
            directory,
            listens_on=address,
        )
        self._client = Client(DirectRoute(pki.ca_file, {address.host: address}))
        self.log = AccessLog(LogFile(directory / "requests.log", self.settle))

    def start(self) -> None:
        """Start it, or do nothing when it runs."""
        limit_rate = "" if self._rate_bytes_per_s is None else f"limit_rate {self._rate_bytes_per_s};"
        self._configuration_file.write_text(
            _CONFIGURATION.format(
                directory=self._directory,
                address=self.address,
                pki=self._pki,
                limit_rate=limit_rate,
                refusal=self._refusal,
                settled=_SETTLED_PATH,
                locations=self._content.locations(),
            )
        )
        self._program.start()

    def stop(self) -> None:
        """Stop it: new connections are refused; bodies on their way are cut, and these requests are never logged."""
        self.settle()
        self._program.kill()

    def throttle(self, rate_bytes_per_s: int | None) -> None:
        """Limit every answer to a rate, or lift the limit with None; open connections are cut."""
        self.stop()
        self._rate_bytes_per_s = rate_bytes_per_s
        self.start()

    def tell(self, content: Front | SignedFiles) -> None:
        """Serve something else from now on; open connections are cut."""
        self.stop()
        self._content = content
        self.start()

    def refuse(self, status: int | None, fields: tuple[tuple[str, str], ...] = ()) -> None:
        """Answer everything with a status and these fields, or serve again with None; open connections are cut."""
        told = " ".join(f'add_header {name} "{text}" always;' for name, text in fields)
        refusal = f'{told} if ($uri != "{_SETTLED_PATH}") {{ return {status} "slow down\\n"; }}'
        self.stop()
        self._refusal = "" if status is None else refusal
        self.start()

    def settle(self) -> None:
        """Return when every request answered before has its line in the log."""
        if self._program.is_running:
            with contextlib.suppress(OSError, HTTPException, ssl.SSLError):
                self._client.get(f"https://{self.address.host}{_SETTLED_PATH}")
