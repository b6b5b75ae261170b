"""Where the operator's credentials come from, joined: settings, a Docker configuration, its helpers, AWS.

The first that has one for a host and repository is used. Settings and file answer at once; a helper or AWS is asked
when something is wanted from a host that neither of them knows, and never offline.
"""

from collections.abc import AsyncIterator, Iterable
from typing import NamedTuple

from regproxy.oci.names import HTTPS_PORT, normalise_host
from regproxy.origin.credential_file import CredentialFile
from regproxy.origin.credential_helper import CredentialHelpers
from regproxy.origin.ecr import EcrLogins
from regproxy.policy.credentials import Credential, find_credential
from regproxy.policy.docker_config import HelperRequest, Place


class Held(NamedTuple):
    """A place for which some source is to have a credential."""

    place: Place
    source: str
    """As the operator knows it: a variable or a helper."""
    credential: Credential | None
    """None if the source has none after all."""


class CredentialSource:
    """Finds the operator's credential for what is asked."""

    def __init__(
        self,
        settled: Iterable[Credential],
        file: CredentialFile | None,
        helpers: CredentialHelpers,
        ecr: EcrLogins,
        *,
        offline: bool = False,
    ) -> None:
        self._settled = tuple(settled)
        self._file = file
        self._helpers = helpers
        self._ecr = ecr
        self._offline = offline

    async def credential_for(self, host: str, port: int, repository: str | None = None) -> Credential | None:
        """Return the credential to use for a repository; None stands for what names none, such as `/v2/`."""
        try:
            name = normalise_host(host)
        except ValueError:
            return None
        found = find_credential(name, port, self._settled, repository)
        if found is None and self._file is not None:
            config = self._file.current()
            found = config.find(name, port, repository)
            request = config.helper_for(name, port) if found is None and not self._offline else None
            if request is not None:
                found = await self._of_helper(request, name, port)
        if found is None and not self._offline:
            login = await self._ecr.login_for(name)
            found = None if login is None else Credential(name, port, login.username, login.password)
        return found

    def distrust(self, host: str, port: int) -> None:
        """Ask helper and AWS anew at the next use: the host has refused what they gave."""
        if self._file is not None:
            request = self._file.current().helper_for(host, port)
            if request is not None:
                self._helpers.distrust(request)
        self._ecr.distrust(host)

    def places(self) -> tuple[Place, ...]:
        """Return the hosts that settings and file name."""
        settled = tuple(_place(login) for login in self._settled)
        if self._file is None:
            return settled
        config = self._file.current()
        return (*settled, *(_place(login) for login in config.credentials), *config.helper_hosts())

    async def held(self) -> AsyncIterator[Held]:
        """Give every credential that settings, file and helpers are to have, with its source."""
        for login in self._settled:
            yield Held(_place(login), "AUTH_REGISTRIES", login)
        if self._file is None:
            return
        config = self._file.current()
        for login in config.credentials:
            yield Held(_place(login), "AUTH_CONFIG_FILE", login)
        for place in config.helper_hosts():
            port = place.port or HTTPS_PORT
            request = config.helper_for(place.host, port)
            if request is not None:
                login_found = await self._of_helper(request, place.host, port)
                yield Held(place, f"docker-credential-{request.name}", login_found)

    async def _of_helper(self, request: HelperRequest, host: str, port: int) -> Credential | None:
        answer = await self._helpers.ask(request)
        if answer is None:
            return None
        if answer.is_identity_token:
            return Credential(host, port, "", "", identity_token=answer.secret)
        return Credential(host, port, answer.username, answer.secret)


def _place(credential: Credential) -> Place:
    return Place(credential.host, credential.port, credential.path)
