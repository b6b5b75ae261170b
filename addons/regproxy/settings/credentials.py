"""The list of logins: lenient for the environment's text, strict for YAML.

The predecessor split `AUTH_REGISTRIES` in a shell: a password with the delimiter was cut, and one empty entry stopped
the start. Here a bad entry of the environment becomes a warning that has its number and never its text: any part of a
malformed entry may be the password. The entry's host may be a registry or its token server; which of them gets the
login is decided in `regproxy.policy.credentials`.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from regproxy.oci.names import parse_repository_name
from regproxy.policy.credentials import Credential
from regproxy.policy.interception import HostPattern
from regproxy.settings.grammar import strip_quotes

# The reference's image sets these two as an example; they are nobody's registries.
_PLACEHOLDERS = frozenset({"some.authenticated.registry:oneuser:onepassword", "another.registry:user:password"})

# Docker's own configuration names its hub `https://index.docker.io/v1/`.
_SCHEME = re.compile(r"https?://", re.IGNORECASE)
_API_PATH = re.compile(r"(?:/v[12])?/?")

# A number after the host is the port only if a user and a password still follow: `host:5000:user:password`.
_ADDRESS_BEFORE_COLON = re.compile(
    r"(?P<address>(?:\[[^\]]*\]|[^:/]*)(?::[0-9]{1,5}(?=(?:/[^:]*)?:[^:]*:))?(?:/[^:]*)?):(?P<login>.*)", re.DOTALL
)

_YAML_KEYS = ("host", "username", "password", "password_file")


class CredentialEntryError(ValueError):
    """One login cannot be used. The message says why without a word of the entry."""


def parse_credential_list(
    text: str, list_delimiter: str, field_delimiter: str
) -> tuple[tuple[Credential, ...], tuple[str, ...]]:
    """Return the logins of AUTH_REGISTRIES and a warning for each entry that is left out."""
    credentials: list[Credential] = []
    warnings: list[str] = []
    for number, entry in enumerate(_split_entries(text, list_delimiter), start=1):
        if entry in _PLACEHOLDERS:
            continue
        try:
            credential = parse_credential(entry, strip_quotes(field_delimiter))
            refuse_second_login(credential, credentials)
        except CredentialEntryError as error:
            warnings.append(f"AUTH_REGISTRIES: entry {number} is left out: {error}")
            continue
        credentials.append(credential)
    return tuple(credentials), tuple(warnings)


def parse_credential(entry: str, delimiter: str) -> Credential:
    """Return the login of `host:user:password`; the password keeps every further delimiter.

    Raises CredentialEntryError.
    """
    address, login = _split_address(_SCHEME.sub("", entry, count=1) if _SCHEME.match(entry) else entry, delimiter)
    username, _, password = login.partition(delimiter)
    return _make_credential(address, username, strip_quotes(password))


def parse_yaml_credential(entry: object, directory: Path) -> Credential:
    """Return the login of one YAML mapping; reads its `password_file`, which is relative to `directory`.

    Raises CredentialEntryError.
    """
    if not isinstance(entry, Mapping):
        raise CredentialEntryError("not a mapping with host, username and password or password_file")
    # The text of an unknown key is not repeated: `{password:secret}` without a blank is a key.
    if not all(key in _YAML_KEYS for key in entry):
        raise CredentialEntryError(f"it has an unknown key (known are {', '.join(_YAML_KEYS)})")
    for key, value in entry.items():
        if not isinstance(value, str):
            raise CredentialEntryError(f"{key} is not a text: put it in quotes")
    if not {"host", "username"} <= entry.keys() or ("password" in entry) == ("password_file" in entry):
        raise CredentialEntryError("it needs host, username and one of password and password_file")
    password = entry["password"] if "password" in entry else _read_password(directory / entry["password_file"])
    return _make_credential(entry["host"], entry["username"], password)


def refuse_second_login(credential: Credential, earlier: list[Credential]) -> None:
    """Raise CredentialEntryError if an earlier login is for the same: only one could ever be used."""
    if any(_place(credential) == _place(other) for other in earlier):
        raise CredentialEntryError("an entry before it has the same host" + (" and path" if credential.path else ""))


def _place(credential: Credential) -> tuple[str, int | None, str]:
    return credential.host, credential.port, credential.path


def _split_entries(text: str, delimiter: str) -> list[str]:
    """Return the entries that are not empty; a blank as delimiter means any run of blanks and line ends."""
    unquoted = strip_quotes(text)
    exact = strip_quotes(delimiter)
    entries = unquoted.split(exact) if exact else unquoted.split()
    return [strip_quotes(entry) for entry in entries if entry.strip()]


def _split_address(entry: str, delimiter: str) -> tuple[str, str]:
    """Return the address and the rest, which is user and password."""
    if delimiter == ":":
        match = _ADDRESS_BEFORE_COLON.fullmatch(entry)
        address, login = (match["address"], match["login"]) if match else (entry, "")
    else:
        address, _, login = entry.partition(delimiter)
    if delimiter not in login:
        raise CredentialEntryError("it is not host, user and password")
    return address, login


def _make_credential(address: str, username: str, password: str) -> Credential:
    host, slash, path = _SCHEME.sub("", address.strip(), count=1).partition("/")
    repositories = "" if _API_PATH.fullmatch(slash + path) else path.removesuffix("/")
    if repositories and not _is_repository_name(repositories):
        raise CredentialEntryError("what follows its host is not the beginning of a repository's name")
    try:
        pattern = HostPattern.parse(host)
    except ValueError:
        raise CredentialEntryError("what should be its host is not one") from None
    if pattern.is_wildcard:
        raise CredentialEntryError("its host has a wildcard")
    if not password:
        raise CredentialEntryError("its password is empty")
    try:
        return Credential(pattern.host, pattern.port, username, password, repositories)
    except ValueError:
        raise CredentialEntryError("its user name has a colon, which HTTP Basic cannot carry") from None


def _is_repository_name(text: str) -> bool:
    try:
        parse_repository_name(text)
    except ValueError:
        return False
    return True


def _read_password(path: Path) -> str:
    """Return the file's text without the line end that editors add."""
    try:
        return path.read_text(encoding="utf-8").rstrip("\r\n")
    except OSError as error:
        raise CredentialEntryError(f"password_file {path}: {error.strerror}") from None
    except ValueError:
        raise CredentialEntryError(f"password_file {path}: not UTF-8 text") from None
