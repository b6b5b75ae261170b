"""Logins of Amazon ECR from the machine's own AWS identity: environment keys, a profile, or a pod's or machine's role.

ECR takes Basic with the user `AWS` and a password that GetAuthorizationToken gives for 12 hours (AWS, "Private registry
authentication in Amazon ECR"). botocore finds the identity and signs; it is the optional extra `ecr`.
"""

import asyncio
import base64
import binascii
import contextlib
import datetime as dt
import logging
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from regproxy.origin.single_flight import SingleFlight

logger = logging.getLogger(__name__)

TOKEN_LIFETIME_S = 12 * 3600.0
USED_PART = 0.8
"""A token is replaced when this part of its life is over."""

RETRY_S = 60.0
"""How long a failure stands before AWS is asked again."""

_HOST = re.compile(
    r"[0-9]{12}\.dkr(?:\.ecr(?:-fips)?\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(?:\.cn)?"
    r"|-ecr(?:-fips)?\.(?P<dual>[a-z0-9-]+)\.on\.(?:aws|amazonwebservices\.com\.cn))"
)
"""AWS, "Amazon ECR endpoints and quotas": a private registry, also by its FIPS and dual-stack names."""


@dataclass(frozen=True, slots=True)
class EcrLogin:
    """User and password for all private registries of one region."""

    username: str
    password: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class _Known:
    login: EcrLogin | None
    asked_at_s: float
    until_s: float
    """Both by the monotonic clock."""


class EcrLogins:
    """Asks AWS once for each region, and again in good time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._flights: SingleFlight[str, EcrLogin | None] = SingleFlight()
        self._trouble: dict[str, str] = {}

    async def login_for(self, host: str) -> EcrLogin | None:
        """Return the login for a normalised host, None if it is not ECR's or AWS gives none, which is said once."""
        region = region_of(host)
        if region is None:
            return None
        known = self._known.get(region)
        if known is not None and self._clock() < known.until_s:
            return known.login
        return await self._flights.run(region, lambda: self._ask(region))

    def distrust(self, host: str) -> None:
        """Ask AWS again at the next use: what it gave was refused."""
        region = region_of(host)
        known = self._known.get(region or "")
        if region is not None and known is not None and self._clock() >= known.asked_at_s + RETRY_S:
            del self._known[region]

    async def _ask(self, region: str) -> EcrLogin | None:
        login, lifetime_s = None, RETRY_S
        try:
            login, lifetime_s = await _in_thread(region)
        except ImportError:
            self._say(region, "botocore is not installed: install registry-proxy[ecr]")
        except Exception as error:  # noqa: BLE001 - botocore's errors have no common base
            # Only the kind: the text of AWS's errors has account and role names, and keys that were mistyped.
            self._say(region, f"no login from AWS: {type(error).__name__}")
        else:
            self._trouble.pop(region, None)
        now_s = self._clock()
        self._known[region] = _Known(login, now_s, now_s + lifetime_s)
        return login

    def _say(self, region: str, trouble: str) -> None:
        if self._trouble.get(region) != trouble:
            self._trouble[region] = trouble
            logger.warning("ECR in %s: %s", region, trouble)


def region_of(host: str) -> str | None:
    """Return the AWS region of a private ECR registry, None for any other host."""
    match = _HOST.fullmatch(host)
    return None if match is None else match["region"] or match["dual"]


async def _in_thread(region: str) -> tuple[EcrLogin, float]:
    """Run `request_login` where the proxy's end does not wait for it, as it would for asyncio's own threads."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[tuple[EcrLogin, float]] = loop.create_future()

    def settle(login: tuple[EcrLogin, float] | None, error: Exception | None) -> None:
        if answer.done():
            return
        if login is not None:
            answer.set_result(login)
        elif error is not None:
            answer.set_exception(error)

    def run() -> None:
        login, failure = None, None
        try:
            login = request_login(region)
        except Exception as error:  # noqa: BLE001 - given to who waits
            failure = error
        with contextlib.suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(settle, login, failure)

    threading.Thread(target=run, name=f"ECR login for {region}", daemon=True).start()
    return await answer


def request_login(region: str) -> tuple[EcrLogin, float]:
    """Ask AWS, and return the login and for how many seconds to use it. Blocks; raises ImportError and botocore's."""
    import botocore.config  # noqa: PLC0415 - optional, and 20 MB that most proxies do without
    import botocore.session  # noqa: PLC0415

    config = botocore.config.Config(connect_timeout=5, read_timeout=10, retries={"total_max_attempts": 2})
    client = botocore.session.get_session().create_client("ecr", region_name=region, config=config)
    return parse_authorization(client.get_authorization_token(), dt.datetime.now(dt.UTC))


def parse_authorization(answer: Any, now: dt.datetime) -> tuple[EcrLogin, float]:
    """Read GetAuthorizationToken's answer. Raises ValueError."""
    try:
        granted = answer["authorizationData"][0]
        username, colon, password = base64.b64decode(granted["authorizationToken"]).decode().partition(":")
        lifetime_s = min((granted["expiresAt"] - now).total_seconds(), TOKEN_LIFETIME_S)
    except (KeyError, IndexError, TypeError, binascii.Error, UnicodeError):
        raise ValueError("not an answer to GetAuthorizationToken") from None
    if not colon or not password:
        raise ValueError("not an answer to GetAuthorizationToken")
    return EcrLogin(username, password), max(lifetime_s * USED_PART, RETRY_S)
