"""What the proxy leaves to others on its machine: nothing to read, and no secret for its children."""

import os
from collections.abc import MutableMapping

from regproxy.settings.table import SETTINGS_TABLE

PRIVATE_UMASK = 0o077

_FOR_CHILDREN = frozenset({"HTTPS_PROXY", "HTTP_PROXY"})
"""A credential helper or botocore that asks a cloud goes the operator's way, with its login."""


def keep_private(environ: MutableMapping[str, str]) -> None:
    """Make files that only this user can read, and forget the secrets that the settings have been read from.

    `/proc/PID/environ` goes on showing this user the environment that the process began with; whoever does not want
    that uses the files that `<variable>_FILE` names.
    """
    os.umask(PRIVATE_UMASK)
    for setting in SETTINGS_TABLE:
        if setting.secret and setting.variable not in _FOR_CHILDREN:
            for name in (setting.variable, *setting.aliases):
                environ.pop(name, None)
