"""nginx as a TLS caching reverse proxy, with the cache settings of rpardini/docker-registry-proxy.

Those are: key `$uri`, lock with an 880 s limit (and nginx's 5 s `lock_age`), 60 days, forced ranges, revalidation, the
upstream's cache headers ignored, aborts of clients ignored, 128k + 4 x 256k buffers.
"""

from bench.peers.base import Peer, Programs, Site, instead_of_upstream
from bench.upstream import Door, nginx_user
from lab.addresses import Address
from lab.programs import Program, find_program

_CONFIGURATION = """
daemon off; worker_processes auto; {user}
pid {directory}/nginx.pid; error_log {directory}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  default_type application/octet-stream; server_tokens off; sendfile on; tcp_nopush on; gzip off;
  keepalive_timeout 300s; keepalive_requests 1000000;
  client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxied;
  fastcgi_temp_path {directory}/fastcgi; uwsgi_temp_path {directory}/uwsgi; scgi_temp_path {directory}/scgi;
  log_format cached escape=json '{{"time":"$time_iso8601","client":"$remote_addr","request":"$request",'
    '"status":"$status","bytes":"$body_bytes_sent","cache":"$upstream_cache_status","seconds":"$request_time"}}';
  access_log {directory}/access.log cached;
  ssl_certificate {pki.certificate_file}; ssl_certificate_key {pki.key_file};

  proxy_cache_path {directory}/cache levels=1:2 keys_zone=registry:10m inactive=60d max_size=32g use_temp_path=off;
  proxy_cache_key $uri; proxy_cache_lock on; proxy_cache_lock_timeout 880s; proxy_cache_valid 200 206 60d;
  proxy_cache_revalidate on; proxy_force_ranges on; proxy_ignore_client_abort on;
  proxy_ignore_headers X-Accel-Expires Expires Cache-Control Set-Cookie; proxy_hide_header Set-Cookie;
  proxy_buffer_size 128k; proxy_buffers 4 256k; proxy_busy_buffers_size 256k;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_set_header Host $http_host;
  proxy_ssl_verify on; proxy_ssl_trusted_certificate {pki.ca_file}; proxy_ssl_server_name on;
  proxy_read_timeout 900s; proxy_connect_timeout 60s; client_max_body_size 0;
  {servers}
}}
"""
_SERVER = """
  server {{ listen {address}{tls}; proxy_ssl_name {door.value};
    location / {{ proxy_pass {door.scheme}://{upstream}; }}
    location ~ ^/v2/.+/(blobs|manifests)/ {{ proxy_cache registry; proxy_pass {door.scheme}://{upstream}; }}
  }}
"""


def _start(site: Site) -> Programs:
    addresses: dict[Door, Address] = {door: site.addresses.take() for door in site.doors}
    servers = (
        _SERVER.format(
            address=address,
            tls="" if door is Door.PLAIN else " ssl",
            door=door,
            upstream=site.upstream.addresses[door],
        )
        for door, address in addresses.items()
    )
    site.directory.mkdir(parents=True, exist_ok=True)
    (site.directory / "nginx.conf").write_text(
        _CONFIGURATION.format(
            directory=site.directory, user=nginx_user(), pki=site.upstream.pki, servers="".join(servers)
        )
    )
    command = [find_program("nginx"), "-p", str(site.directory), "-c", "nginx.conf"]
    command += ["-e", str(site.directory / "error.log")]
    program = Program("nginx", command, site.directory, listens_on=addresses[site.doors[0]])
    return Programs(site, instead_of_upstream(site, addresses), [program]).start(addresses.values())


NGINX = Peer(
    name="nginx",
    start=_start,
    difference=(
        "A reverse proxy in the registry's place: no CONNECT and no second look at who is asked, which the reference's "
        "nginx has to do (Debian has no CONNECT module). ECDSA P-256 as ours; the reference signs with RSA. One worker "
        "for each core. `/v2/` is passed on to the upstream; ours answers it itself."
    ),
)
