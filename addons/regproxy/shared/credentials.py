"""What obstore does not find by itself: keys in the shared credentials file, and the secret behind the seals.

AWS, "Configuration and credential file settings": an INI file with a section for each profile. Variables win over it.
"""

import configparser
import datetime as dt
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from obstore.store import S3Credential

_FROM_ENVIRONMENT = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
_READ_AGAIN = dt.timedelta(minutes=10)


def file_credentials(environ: Mapping[str, str]) -> "Callable[[], S3Credential] | None":
    """Return what reads the credentials file, None when there is none or the environment says enough."""
    if any(environ.get(variable) for variable in _FROM_ENVIRONMENT):
        return None
    path = _file(environ)
    if not path.is_file():
        return None
    profile = environ.get("AWS_PROFILE") or "default"

    def read() -> "S3Credential":
        keys = _keys(path, profile)
        return {
            "access_key_id": keys["aws_access_key_id"],
            "secret_access_key": keys["aws_secret_access_key"],
            "token": keys.get("aws_session_token"),
            "expires_at": dt.datetime.now(dt.UTC) + _READ_AGAIN,  # it may be replaced by then
        }

    return read


def secret_access_key(environ: Mapping[str, str]) -> str:
    """Return the secret key that does not change while the proxy runs, empty when there is none.

    Raises ValueError for a file that cannot be used.
    """
    if environ.get("AWS_ACCESS_KEY_ID"):
        # With a session token the keys are another pair every few hours.
        return "" if environ.get("AWS_SESSION_TOKEN") else environ.get("AWS_SECRET_ACCESS_KEY", "")
    if file_credentials(environ) is None:
        return ""
    keys = _keys(_file(environ), environ.get("AWS_PROFILE") or "default")
    return "" if "aws_session_token" in keys else keys["aws_secret_access_key"]


def _file(environ: Mapping[str, str]) -> Path:
    named = environ.get("AWS_SHARED_CREDENTIALS_FILE")
    return Path(named) if named else Path(environ.get("HOME") or os.path.expanduser("~")) / ".aws" / "credentials"  # noqa: PTH111 - without HOME, the user's own


def _keys(path: Path, profile: str) -> Mapping[str, str]:
    parser = configparser.RawConfigParser(default_section="")
    try:
        parser.read_string(path.read_text())
        keys = dict(parser.items(profile))
    except configparser.NoSectionError:
        raise ValueError(f"{path} has no profile [{profile}]") from None
    except (configparser.Error, OSError, UnicodeError) as error:
        raise ValueError(f"{path} cannot be read ({type(error).__name__})") from None
    if not keys.get("aws_access_key_id") or not keys.get("aws_secret_access_key"):
        raise ValueError(f"{path}: the profile [{profile}] lacks aws_access_key_id or aws_secret_access_key")
    return keys
