"""The operator's credentials from the settings: their sources, and the hosts that are intercepted for them."""

import dataclasses
import os
from collections.abc import Iterable

from regproxy.oci.names import HTTPS_PORT
from regproxy.origin.credential_file import CredentialFile
from regproxy.origin.credential_helper import CredentialHelpers
from regproxy.origin.credential_source import CredentialSource
from regproxy.origin.ecr import EcrLogins
from regproxy.policy.docker_config import Place
from regproxy.policy.interception import HostPattern, is_intercepted
from regproxy.settings import Settings


def credential_source(settings: Settings) -> CredentialSource:
    """Return the sources that the settings name. Helpers see the clouds' variables of this process."""
    file = None if settings.auth_config_file is None else CredentialFile(settings.auth_config_file)
    return CredentialSource(
        settings.credentials, file, CredentialHelpers(os.environ), EcrLogins(), offline=settings.offline
    )


def intercepting(settings: Settings, places: Iterable[Place]) -> Settings:
    """Return the settings with the hosts of credentials: one of a host that is only tunnelled could not be used."""
    patterns = list(settings.registries)
    for place in places:
        if not is_intercepted(place.host, place.port or HTTPS_PORT, patterns):
            patterns.append(HostPattern(place.host, place.port))
    return dataclasses.replace(settings, registries=tuple(patterns))
