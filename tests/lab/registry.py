"""A docker-registry behind its front: who may read it, where blobs come from, stop and start."""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from lab.access_log import AccessLog
from lab.addresses import BACKEND_PORT, Address
from lab.nginx import Front, Nginx
from lab.pki import Pki
from lab.programs import Program, find_program
from lab.storage import Storage

USERNAME = "alice"
PASSWORD = "secret"
_HTPASSWD_LINE = "alice:$2y$04$/GLJe4SJPHLG9bNIF2qGzOWtj8t7NymecTVuLQ6jjanRtpqWrWhvG\n"
"""bcrypt of PASSWORD with cost 4: it is no secret and each request checks it."""

TOKEN_ISSUER = "lab-issuer"


@dataclass(frozen=True, slots=True)
class Anonymous:
    """Everybody may do everything."""


@dataclass(frozen=True, slots=True)
class BasicAccess:
    """alice/secret may do everything, others get 401 with a Basic challenge."""


@dataclass(frozen=True, slots=True)
class TokenAccess:
    """A bearer token from `realm` decides; others get 401 with a Bearer challenge."""

    realm: str
    service: str


type Access = Anonymous | BasicAccess | TokenAccess


@dataclass(frozen=True, slots=True)
class RegistryPlan:
    """What makes one registry of the lab different from another."""

    name: str
    access: Access = Anonymous()
    cdn_host: str | None = None
    """GET and HEAD of a blob answer 307 to this host, with a signature that changes; None serves blobs itself."""
    manifest_headers: tuple[tuple[str, str], ...] = ()


class Registry:
    """One registry of the lab. Its log has one record a request, also of those it refused."""

    def __init__(self, plan: RegistryPlan, address: Address, directory: Path, storage: Storage, pki: Pki) -> None:
        self.name = plan.name
        self.address = address
        self.storage = storage
        self._plan = plan
        self._directory = directory
        directory.mkdir(parents=True)
        backend = Address(address.host, BACKEND_PORT)
        (directory / "registry.json").write_text(json.dumps(self._configuration(backend, pki)))
        (directory / "htpasswd").write_text(_HTPASSWD_LINE)
        self._program = Program(
            "docker-registry",
            [find_program("docker-registry"), "serve", str(directory / "registry.json")],
            directory,
            listens_on=backend,
        )
        self._content = Front(backend, plan.cdn_host, plan.manifest_headers)
        self._front = Nginx(address, directory / "front", pki, self._content)

    @property
    def log(self) -> AccessLog:
        """All requests since the lab began; `log.mark()` for those from now on."""
        return self._front.log

    def start(self) -> None:
        """Start it, or do nothing when it runs; a stopped one comes back at the same address."""
        self._program.start()
        self._front.start()

    def stop(self) -> None:
        """Stop it: new connections are refused; bodies on their way are cut, and these requests are never logged."""
        # the front first: it would log some of the cut requests if it saw the registry go
        self._front.stop()
        self._program.kill()

    def stop_backend(self) -> None:
        """Stop the registry but not its front: bodies on their way are cut, new requests answered 502."""
        self._program.kill()

    @contextlib.contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop it for a while; it runs again afterwards, also when the test fails."""
        self.stop()
        try:
            yield
        finally:
            self.start()

    @contextlib.contextmanager
    def throttled(self, rate_bytes_per_s: int) -> Iterator[None]:
        """Limit every answer to a rate for a while; open connections are cut at both ends of it."""
        self.throttle(rate_bytes_per_s)
        try:
            yield
        finally:
            self.throttle(None)

    @contextlib.contextmanager
    def refusing(self, status: int, *fields: tuple[str, str]) -> Iterator[None]:
        """Let its front answer everything with a status and these fields for a while; open connections are cut."""
        self._front.refuse(status, fields)
        try:
            yield
        finally:
            self._front.refuse(None)

    @contextlib.contextmanager
    def telling(self, *manifest_headers: tuple[str, str]) -> Iterator[None]:
        """Send these fields with manifests for a while; open connections are cut."""
        self._front.tell(dataclasses.replace(self._content, manifest_headers=manifest_headers))
        try:
            yield
        finally:
            self._front.tell(self._content)

    def throttle(self, rate_bytes_per_s: int | None) -> None:
        """Limit every answer to a rate, or lift the limit with None; open connections are cut."""
        self._front.throttle(rate_bytes_per_s)

    def _configuration(self, backend: Address, pki: Pki) -> Mapping[str, object]:
        """Return the configuration; JSON is YAML.

        There is no descriptor cache in memory, so registries that share a storage see each other's changes at once.
        """
        configuration: dict[str, object] = {
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": True}},
            "http": {"addr": str(backend), "secret": "lab"},
            "storage": {
                "filesystem": {"rootdirectory": str(self.storage.directory)},
                "delete": {"enabled": True},
                "maintenance": {"uploadpurging": {"enabled": False}},
            },
        }
        if self._plan.cdn_host is not None:
            options = {"baseurl": f"https://{self._plan.cdn_host}/"}
            configuration["middleware"] = {"storage": [{"name": "redirect", "options": options}]}
        match self._plan.access:
            case Anonymous():
                pass
            case BasicAccess():
                configuration["auth"] = {"htpasswd": {"realm": "lab", "path": str(self._directory / "htpasswd")}}
            case TokenAccess(realm, service):
                bundle = str(pki.token_certificate_file)
                token = {"realm": realm, "service": service, "issuer": TOKEN_ISSUER, "rootcertbundle": bundle}
                configuration["auth"] = {"token": token}
            case _:
                assert_never(self._plan.access)
        return configuration
