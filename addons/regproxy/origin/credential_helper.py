"""`docker-credential-<name> get`: how Docker asks a program for a login (docker/docker-credential-helpers, README).

The host goes to the program's standard input, a JSON object with Username and Secret comes from its standard output.
What a helper prints may be a secret, so nothing of it is ever logged; its standard error goes nowhere.
"""

import asyncio
import contextlib
import json
import logging
import os
import signal
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from regproxy.origin.single_flight import SingleFlight
from regproxy.policy.docker_config import HelperRequest

logger = logging.getLogger(__name__)

HELPER_LIMIT_S = 20.0
"""A helper that asks a cloud takes a second or two; its own time limits are below this."""

KNOWN_S = 30.0
"""How long an answer stands. Helpers keep tokens themselves; this spares a process for each request of a pull."""

LEAST_AGE_S = 1.0
"""An answer younger than this is not asked for again, even if it was refused."""

OUTPUT_LIMIT_BYTES = 64 * 1024
MOST_ANSWERS = 1000

IDENTITY_TOKEN_USER = "<token>"  # noqa: S105 - the protocol's word for "the secret is an identity token"

_NOT_FOUND = b"credentials not found in native keychain"

_PASSED_NAMES = frozenset(
    {
        "PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "LANG", "TZ", "GNUPGHOME", "PASSWORD_STORE_DIR",
        "DBUS_SESSION_BUS_ADDRESS", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy",
    }
)  # fmt: skip
_PASSED_PREFIXES = (
    "AWS_", "AZURE_", "ACR_", "CLOUDSDK_", "DOCKER_CREDENTIAL_", "ECS_", "GCE_", "GOOGLE_", "IDENTITY_", "KUBERNETES_",
    "LC_", "MSI_", "SSL_CERT_", "XDG_",
)  # fmt: skip


class Answer(NamedTuple):
    """What a helper knows of a host."""

    username: str
    secret: str

    @property
    def is_identity_token(self) -> bool:
        """Whether the secret is for a token server's exchange, and no password."""
        return self.username == IDENTITY_TOKEN_USER

    def __repr__(self) -> str:
        """Leave the secret out."""
        return f"Answer({self.username!r})"


class HelperFailed(Exception):  # noqa: N818  a failure is a result here, and the name says which
    """A helper gave no usable answer. The message has nothing of its output."""


@dataclass(frozen=True, slots=True)
class _Known:
    answer: Answer | None
    asked_at_s: float
    """By the monotonic clock."""


class CredentialHelpers:
    """Asks helpers, each question once at a time, and remembers the answers for a moment."""

    def __init__(self, environ: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        self._environ = helper_environment(environ)
        self._clock = clock
        self._known: OrderedDict[HelperRequest, _Known] = OrderedDict()
        self._flights: SingleFlight[HelperRequest, Answer | None] = SingleFlight()
        self._failing: dict[str, str] = {}

    async def ask(self, request: HelperRequest) -> Answer | None:
        """Return the login, None if the helper knows none; the last one known while the helper fails."""
        known = self._known.get(request)
        if known is not None and self._clock() < known.asked_at_s + KNOWN_S:
            return known.answer
        return await self._flights.run(request, lambda: self._ask(request))

    def distrust(self, request: HelperRequest) -> None:
        """Ask again at the next use: what the helper gave was refused."""
        known = self._known.get(request)
        if known is not None and self._clock() >= known.asked_at_s + LEAST_AGE_S:
            self._known[request] = _Known(known.answer, float("-inf"))

    async def _ask(self, request: HelperRequest) -> Answer | None:
        try:
            answer = await run_helper(request, self._environ)
        except HelperFailed as error:
            self._say(request.name, str(error))
            known = self._known.get(request)
            answer = None if known is None else known.answer
        else:
            self._failing.pop(request.name, None)
        self._known[request] = _Known(answer, self._clock())
        self._known.move_to_end(request)
        if len(self._known) > MOST_ANSWERS:
            self._known.popitem(last=False)
        return answer

    def _say(self, name: str, reason: str) -> None:
        if self._failing.get(name) != reason:
            self._failing[name] = reason
            logger.warning("docker-credential-%s: %s", name, reason)


def helper_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return what a helper gets to see: the clouds' variables and the usual ones, not the proxy's own secrets."""
    return {
        name: value for name, value in environ.items() if name in _PASSED_NAMES or name.startswith(_PASSED_PREFIXES)
    }


async def run_helper(request: HelperRequest, environ: Mapping[str, str]) -> Answer | None:
    """Run one helper and return what it knows of the host, None if nothing. Raises HelperFailed."""
    loop = asyncio.get_running_loop()
    try:
        # As asyncio.create_subprocess_exec, but the transport is ours to close: a helper's child may hold the pipe.
        transport, protocol = await loop.subprocess_exec(
            lambda: asyncio.subprocess.SubprocessStreamProtocol(limit=OUTPUT_LIMIT_BYTES, loop=loop),
            f"docker-credential-{request.name}",
            "get",
            stderr=asyncio.subprocess.DEVNULL,
            env=dict(environ),
            start_new_session=True,
        )
    except OSError as error:
        raise HelperFailed(f"cannot be started: {error.strerror}; it must be in PATH") from None
    process = asyncio.subprocess.Process(transport, protocol, loop)
    try:
        async with asyncio.timeout(HELPER_LIMIT_S):
            output = await _exchange(process, request.server.encode())
            code = await process.wait()
    except TimeoutError:
        _kill(process)
        raise HelperFailed(f"no answer in {HELPER_LIMIT_S:g} s") from None
    finally:
        if process.returncode is None:
            _kill(process)
            await process.wait()
        transport.close()
    if code:
        if _NOT_FOUND in output:
            return None
        raise HelperFailed(f"ended with code {code} when asked about {request.server}")
    return parse_answer(output)


def parse_answer(output: bytes) -> Answer | None:
    """Read a helper's JSON; an empty secret is no login. Raises HelperFailed."""
    try:
        content = json.loads(output)
    except (ValueError, RecursionError):
        raise HelperFailed("its answer is not JSON") from None
    if not isinstance(content, dict):
        raise HelperFailed("its answer is not a JSON object")
    username, secret = content.get("Username") or "", content.get("Secret") or ""
    if not isinstance(username, str) or not isinstance(secret, str):
        raise HelperFailed("Username or Secret of its answer is not a text")
    if ":" in username:
        raise HelperFailed("its user name has a colon, which HTTP Basic cannot carry")
    try:
        (username + secret).encode()
    except UnicodeEncodeError:
        raise HelperFailed("its answer is not Unicode text") from None
    return Answer(username, secret) if secret else None


async def _exchange(process: asyncio.subprocess.Process, question: bytes) -> bytes:
    """Write the question, read the answer to its end. Raises HelperFailed."""
    assert process.stdin is not None
    assert process.stdout is not None
    # A helper may answer, or end, without reading.
    with contextlib.suppress(ConnectionError):
        process.stdin.write(question)
        await process.stdin.drain()
    process.stdin.close()
    output = bytearray()
    while chunk := await process.stdout.read(OUTPUT_LIMIT_BYTES):
        output += chunk
        if len(output) > OUTPUT_LIMIT_BYTES:
            raise HelperFailed(f"its answer is larger than {OUTPUT_LIMIT_BYTES} bytes")
    return bytes(output)


def _kill(process: asyncio.subprocess.Process) -> None:
    """Kill a helper and whatever it has started, also when it has ended before its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
