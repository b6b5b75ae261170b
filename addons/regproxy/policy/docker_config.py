"""Docker's `config.json` and Kubernetes' `.dockerconfigjson`: which logins they hold, and whom they ask for others.

The format is that of the Docker CLI ("docker login", "Credential helpers") and of containers-auth.json(5), whose keys
may have a path. Only what concerns credentials is read. Entries that cannot be used are left out with a sentence that
names the entry and nothing of its value.
"""

import base64
import binascii
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from regproxy.oci.names import HTTPS_PORT, parse_authority, parse_repository_name
from regproxy.oci.wording import shown
from regproxy.policy.credentials import DOCKER_HUB_ALIASES, Credential, find_credential

FILE_NAMES = (".dockerconfigjson", "config.json")
"""What the file is called in a mounted `kubernetes.io/dockerconfigjson` secret, and in a `~/.docker` directory."""

HUB_KEY = "https://index.docker.io/v1/"
"""What Docker and its helpers call Docker Hub."""

_HELPER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_SCHEME = re.compile(r"https?://", re.IGNORECASE)
_LOGIN_FIELDS = ("auth", "username", "password", "identitytoken", "registrytoken")
_API_PATH = re.compile(r"v[12](?:/|$)")
# RFC 6750 section 2.1, or nothing.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]*=*")


class DockerConfigError(ValueError):
    """The text is not a Docker configuration. The message repeats nothing of it."""


class Place(NamedTuple):
    """What a key of the file names."""

    host: str
    port: int | None
    path: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host + (f":{self.port}" if self.port else "") + (f"/{self.path}" if self.path else "")

    def is_at(self, host: str, port: int) -> bool:
        """Whether the key is for this normalised host and port; the names of Docker Hub are one."""
        return self.port in (None, port) and (self.host == host or {self.host, host} <= DOCKER_HUB_ALIASES)


class HelperRequest(NamedTuple):
    """What to ask which `docker-credential-<name>`."""

    name: str
    server: str
    """What stands on its standard input: the key as the file has it, for helpers compare texts."""


@dataclass(frozen=True, slots=True)
class DockerConfig:
    """The usable part of one file."""

    credentials: tuple[Credential, ...] = ()
    helpers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Key as the file has it -> helper, of `credHelpers`."""
    store: str = ""
    """The helper for every other host, of `credsStore`; empty without one."""
    stored_keys: tuple[str, ...] = ()
    """Keys of `auths` without a login: where `docker login` has put one into the store."""
    problems: tuple[str, ...] = ()
    """One sentence for each entry that is left out."""

    def find(self, host: str, port: int, repository: str | None) -> Credential | None:
        """Return the login that the file itself has."""
        return find_credential(host, port, self.credentials, repository)

    def helper_for(self, host: str, port: int) -> HelperRequest | None:
        """Return which helper to ask about a normalised host, None if there is none for it."""
        for key, name in self.helpers.items():
            if parse_place(key).is_at(host, port):
                return HelperRequest(name, HUB_KEY if host in DOCKER_HUB_ALIASES and "/" not in key else key)
        if not self.store:
            return None
        for key in self.stored_keys:
            if parse_place(key).is_at(host, port):
                return HelperRequest(self.store, key)
        return HelperRequest(
            self.store, HUB_KEY if host in DOCKER_HUB_ALIASES else str(Place(host, _written(port), ""))
        )

    def helper_hosts(self) -> Iterator[Place]:
        """Give the hosts that the file names without having their login: they are the helpers' to know."""
        yield from (parse_place(key) for key in self.helpers)
        if self.store:
            yield from (parse_place(key) for key in self.stored_keys)


def parse_place(key: str) -> Place:
    """Read a key: `host`, `host:port`, `host/path`, `https://host/v1/`. ValueError for anything else."""
    authority, _, path = _SCHEME.sub("", key.strip(), count=1).partition("/")
    host, port = parse_authority(authority)
    path = _API_PATH.sub("", path, count=1).strip("/")
    return Place(host, port, parse_repository_name(path) if path else "")


def parse_docker_config(text: str) -> DockerConfig:
    """Return what a file says about credentials. Raises DockerConfigError and nothing else."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        raise DockerConfigError("not JSON") from None
    if not isinstance(content, dict):
        raise DockerConfigError("not a JSON object")
    reader = _Reader()
    helpers = {key: name for key, name in _section(content, "credHelpers") if reader.helper(key, name)}
    store = content.get("credsStore") or ""
    if not isinstance(store, str) or (store and not _is_helper_name(store)):
        reader.problems.append("credsStore is left out: not the name of a helper")
        store = ""
    for key, entry in _section(content, "auths"):
        reader.login(key, entry)
    return DockerConfig(
        tuple(reader.credentials), MappingProxyType(helpers), store, tuple(reader.stored_keys), tuple(reader.problems)
    )


class _Reader:
    """Takes one entry after another and collects what cannot be used."""

    def __init__(self) -> None:
        self.credentials: list[Credential] = []
        self.stored_keys: list[str] = []
        self.problems: list[str] = []

    def helper(self, key: str, name: object) -> bool:
        """Return whether an entry of `credHelpers` can be used."""
        if not _is_helper_name(name):
            self._leave_out("credHelpers", key, "not the name of a helper")
            return False
        return self._place("credHelpers", key) is not None

    def login(self, key: str, entry: object) -> None:
        """Keep the login of an entry of `auths`."""
        place = self._place("auths", key)
        if place is None:
            return
        try:
            credential = _login(place, entry)
        except ValueError as error:
            self._leave_out("auths", key, str(error))
            return
        if credential is None:
            self.stored_keys.append(key)
        else:
            self.credentials.append(credential)

    def _place(self, section: str, key: str) -> Place | None:
        try:
            return parse_place(key)
        except ValueError:
            self._leave_out(section, key, "its key is not a host, or a host and the beginning of a repository's name")
        return None

    def _leave_out(self, section: str, key: str, reason: str) -> None:
        # A login written as a URL's user has a password in the key.
        self.problems.append(f"{section}: {'an entry' if '@' in key else shown(key)} is left out: {reason}")


def _login(place: Place, entry: object) -> Credential | None:
    """Return the login of an entry, None when it has none. ValueError says why it cannot be used."""
    texts = _texts(entry)
    username, password = texts["username"], texts["password"]
    if texts["auth"]:
        username, password = _decode(texts["auth"])
    identity_token, registry_token = texts["identitytoken"], texts["registrytoken"]
    if not (password or identity_token or registry_token):
        return None
    if not _TOKEN.fullmatch(registry_token):
        raise ValueError("registrytoken is not a bearer token")
    if not _is_unicode(username + password + identity_token):
        raise ValueError("its login is not Unicode text")
    try:
        return Credential(place.host, place.port, username, password, place.path, identity_token, registry_token)
    except ValueError:
        raise ValueError("its user name has a colon, which HTTP Basic cannot carry") from None


def _texts(entry: object) -> Mapping[str, str]:
    """Return the fields of an entry, empty where it has none. Raises ValueError."""
    if not isinstance(entry, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - the file's fault, not the caller's
    texts = {name: entry.get(name) or "" for name in _LOGIN_FIELDS}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise ValueError(f"{name} is not a text")  # noqa: TRY004 - the file's fault, not the caller's
    return texts


def _decode(auth: str) -> tuple[str, str]:
    """Return user and password of `auth`, which is Base64 of `user:password`. Raises ValueError."""
    try:
        # Docker pads the password with NUL in some versions and strips them when it reads.
        text = base64.b64decode(auth, validate=True).decode().rstrip("\0")
    except (binascii.Error, UnicodeError):
        raise ValueError("auth is not Base64 of UTF-8 text") from None
    username, colon, password = text.partition(":")
    if not colon:
        raise ValueError("auth is not user and password")
    return username, password


def _is_unicode(text: str) -> bool:
    """Whether a text can be sent: JSON can write halves of characters, which UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_helper_name(name: object) -> bool:
    return isinstance(name, str) and _HELPER_NAME.fullmatch(name) is not None


def _section(content: Mapping[str, object], name: str) -> Iterator[tuple[str, Any]]:
    section = content.get(name)
    return iter(section.items() if isinstance(section, dict) else ())


def _written(port: int) -> int | None:
    return None if port == HTTPS_PORT else port
