"""What of a request or an answer may be shown to a person: everything but secrets.

Fields are judged by their name, parameters of a URL by a list of those that are known to be harmless: a signed URL
has its secrets under names that differ from storage to storage. The text around a secret stays, so that one can see
that a request had a login and of which kind.
"""

import re
from collections.abc import Iterable

MASK = "***"

_SECRET_FIELD = re.compile(r"auth|cookie|token|secret|passw|credential|signature|session|api-?key", re.IGNORECASE)

_CHALLENGES = frozenset({"www-authenticate", "proxy-authenticate"})
"""They say which login is wanted, and have none (RFC 9110 section 11.6.1)."""

_AUTHORIZATIONS = frozenset({"authorization", "proxy-authorization"})
_SCHEMES = frozenset({"basic", "bearer", "digest", "negotiate", "ntlm"})

_HARMLESS_PARAMETERS = frozenset(
    {"artifacttype", "client_id", "digest", "from", "last", "mount", "n", "ns", "offline_token", "scope", "service"}
)
"""Of the distribution specification and of Docker's token requests."""

_USER_INFORMATION = re.compile(r"://[^/?#\s\"'<>]*@")
_QUERY_OR_FRAGMENT = re.compile(r"[?#][^\s\"'<>]*")
_PARAMETER = re.compile(r"[^?#&;]+")
_PARAMETER_NAME = re.compile(r"[A-Za-z0-9_.-]{1,40}")


def masked_fields(fields: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return header fields as they may be shown; order and repeated fields stay."""
    return tuple((name, _masked_value(name.lower(), value)) for name, value in fields)


def masked_text(text: str) -> str:
    """Return a text, such as a URL or a message with URLs, without logins and without values of parameters."""
    without_login = _USER_INFORMATION.sub(f"://{MASK}@", text)
    return _QUERY_OR_FRAGMENT.sub(lambda query: _PARAMETER.sub(_masked_parameter, query[0]), without_login)


def _masked_value(name: str, value: str) -> str:
    if name in _AUTHORIZATIONS:
        scheme, _, credentials = value.strip().partition(" ")
        return f"{scheme} {MASK}" if credentials and scheme.lower() in _SCHEMES else MASK
    if name not in _CHALLENGES and _SECRET_FIELD.search(name):
        return MASK
    return masked_text(value)


def _masked_parameter(parameter: re.Match[str]) -> str:
    """Mask the value; without a value, or with a name that is not one, the whole may be the secret."""
    name, _, value = parameter[0].partition("=")
    if not value or not _PARAMETER_NAME.fullmatch(name):
        return MASK
    return parameter[0] if name.lower() in _HARMLESS_PARAMETERS else f"{name}={MASK}"
