"""The lab as a whole: its names, which server answers for which, and the settings that lead a proxy to them.

Servers start when they are first asked for and run until the lab is closed.

| name | what |
|---|---|
| noauth.lab.test | no authentication; push here |
| basic.lab.test | Basic, alice/secret |
| token.lab.test | bearer tokens of https://auth.lab.test/token |
| redirect.lab.test | no authentication; blobs are redirected to cdn.lab.test |
| registry-1.docker.io, index.docker.io | tokens of auth.docker.io, blobs at production.cloudflare.docker.com |
| other.lab.test | no authentication, storage of its own |
| origin.lab.test, origin2.lab.test | registries for a scripted `Origin` |
| edge.lab.test, edge2.lab.test | trusted hosts for a scripted `Origin`, no registries |

All registries but other.lab.test serve one shared storage: what is pushed to noauth.lab.test is in each of them.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Self

from lab.addresses import Address, AddressBlock
from lab.http_client import Client, DirectRoute
from lab.image import Image
from lab.nginx import Nginx, SignedFiles
from lab.origin import Origin
from lab.pki import create_pki
from lab.proxy import Proxy
from lab.registry import BasicAccess, Registry, RegistryPlan, TokenAccess
from lab.skopeo import Skopeo
from lab.storage import Storage
from lab.token_service import TokenService

HUB = "registry-1.docker.io"
HUB_CDN = "production.cloudflare.docker.com"
CDN = "cdn.lab.test"

_HOST_NUMBERS: Mapping[str, int] = {
    "noauth.lab.test": 1,
    "basic.lab.test": 2,
    "token.lab.test": 3,
    "auth.lab.test": 4,
    "auth.docker.io": 4,
    "redirect.lab.test": 5,
    CDN: 6,
    HUB_CDN: 6,
    "other.lab.test": 7,
    HUB: 8,
    "index.docker.io": 8,
    "origin.lab.test": 21,
    "origin2.lab.test": 22,
    "edge.lab.test": 23,
    "edge2.lab.test": 24,
}
_REGISTRIES = (
    "noauth.lab.test",
    "basic.lab.test",
    "token.lab.test",
    "redirect.lab.test",
    "other.lab.test",
    "origin.lab.test",
    "origin2.lab.test",
)
_TRUSTED_HOSTS = ("auth.lab.test", "auth.docker.io", CDN, HUB_CDN, "edge.lab.test", "edge2.lab.test")

_HUB_HEADERS = (
    ("ratelimit-limit", "100;w=21600"),
    ("ratelimit-remaining", "99;w=21600"),
    ("docker-ratelimit-source", "192.0.2.1"),
)


class Lab:
    """One run of the lab, everything in `directory`. Close it, or use it as a context manager."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._cleanup = ExitStack()
        block = AddressBlock.claim()
        self._cleanup.callback(block.release)
        self.addresses: Mapping[str, Address] = {name: block.address(n) for name, n in _HOST_NUMBERS.items()}
        self.pki = create_pki(directory / "pki", list(_HOST_NUMBERS), block.hosts())
        self.storage = Storage(directory / "storage")
        self.other_storage = Storage(directory / "other-storage")
        self.client = Client(DirectRoute(self.pki.ca_file, self.addresses))
        self.skopeo = Skopeo(directory / "skopeo", self.pki.ca_file)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop all servers, newest first."""
        self._cleanup.close()

    @cached_property
    def noauth(self) -> Registry:
        """No authentication; push here."""
        return self._registry(RegistryPlan("noauth.lab.test"))

    @cached_property
    def basic(self) -> Registry:
        """Basic, alice/secret."""
        return self._registry(RegistryPlan("basic.lab.test", BasicAccess()))

    @cached_property
    def token(self) -> Registry:
        """Bearer tokens; the token server is started with it."""
        self.auth.start()
        access = TokenAccess("https://auth.lab.test/token", "token.lab.test")
        return self._registry(RegistryPlan("token.lab.test", access))

    @cached_property
    def redirect(self) -> Registry:
        """Blobs come from the CDN, which is started with it."""
        self.cdn.start()
        return self._registry(RegistryPlan("redirect.lab.test", cdn_host=CDN))

    @cached_property
    def hub(self) -> Registry:
        """Like Docker Hub; token server and CDN are started with it."""
        self.auth.start()
        self.cdn.start()
        access = TokenAccess("https://auth.docker.io/token", "registry.docker.io")
        return self._registry(RegistryPlan(HUB, access, HUB_CDN, _HUB_HEADERS))

    @cached_property
    def other(self) -> Registry:
        """No authentication, storage of its own."""
        return self._registry(RegistryPlan("other.lab.test"), self.other_storage)

    @cached_property
    def cdn(self) -> Nginx:
        """The CDN of the shared storage, under both of its names."""
        cdn = Nginx(self.addresses[CDN], self.directory / CDN, self.pki, SignedFiles(self.storage.directory))
        self._cleanup.callback(cdn.stop)
        cdn.start()
        return cdn

    @cached_property
    def auth(self) -> TokenService:
        """The token server, under both of its names."""
        auth = TokenService(self.addresses["auth.lab.test"], self.directory / "auth.lab.test", self.pki)
        self._cleanup.callback(auth.stop)
        auth.start()
        return auth

    def origin(self, name: str = "origin.lab.test") -> Origin:
        """Return a new scripted server for one of the free names; the caller starts and stops it."""
        return Origin(name, self.addresses[name], self.pki)

    def proxy(self, directory: Path, settings: Mapping[str, str] | None = None, arguments: Sequence[str] = ()) -> Proxy:
        """Return a proxy that reaches every name of the lab, not started; the caller closes it."""
        return Proxy(directory, {**self.proxy_settings, **(settings or {})}, arguments)

    @property
    def proxy_settings(self) -> dict[str, str]:
        """The environment variables that lead a proxy to the lab."""
        mappings = (f"{name}={address}" for name, address in self.addresses.items())
        return {
            "REGISTRIES": " ".join(_REGISTRIES),
            "TRUSTED_HOSTS": " ".join(_TRUSTED_HOSTS),
            "UPSTREAM_CA_FILE": str(self.pki.ca_file),
            "UPSTREAM_MAPPINGS": " ".join(mappings),
        }

    def push(
        self,
        image: Image,
        name: str,
        tag: str = "latest",
        *,
        to: Registry | None = None,
        manifest_format: str | None = None,
    ) -> str:
        """Push straight to a registry without authentication (noauth by default) and return the tag's digest."""
        address = (to or self.noauth).address
        return self.skopeo.push(image, f"{address}/{name}:{tag}", manifest_format=manifest_format)

    def _registry(self, plan: RegistryPlan, storage: Storage | None = None) -> Registry:
        directory = self.directory / plan.name
        registry = Registry(plan, self.addresses[plan.name], directory, storage or self.storage, self.pki)
        self._cleanup.callback(registry.stop)
        registry.start()
        return registry
