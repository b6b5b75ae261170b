"""The settings from a shell, for `entrypoint.sh` and for the README: `python -m regproxy.settings [command]`.

    check  (also without a command) say what is wrong with the settings of this environment
    start  the same, then print which of mitmproxy's programs shall run (mitmweb in debug mode, else mitmdump),
           a colon and the cache directory
    table  print the README's table of all settings

Errors and warnings go to standard error, one line each. Exit code 1 means that the proxy could not start.
"""

import os
import sys
from collections.abc import Mapping, Sequence

from regproxy.settings.documentation import markdown_rows
from regproxy.settings.loading import load_settings
from regproxy.settings.model import Settings, SettingsError
from regproxy.settings.preflight import find_problems


def main(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Run one command and return the exit code."""
    match list(arguments):
        case [] | ["check"]:
            return 0 if _check(environ) else 1
        case ["start"]:
            settings = _check(environ)
            if settings is None:
                return 1
            program = "mitmweb" if settings.debug_ports else "mitmdump"
            sys.stdout.write(f"{program}:{settings.cache_directory}\n")
            return 0
        case ["table"]:
            sys.stdout.write("\n".join(markdown_rows()) + "\n")
            return 0
        case _:
            sys.stderr.write("usage: python -m regproxy.settings [check | start | table]\n")
            return 2


def _check(environ: Mapping[str, str]) -> Settings | None:
    """Return the settings if a proxy could start with them; say on standard error what is wrong or doubtful."""
    try:
        settings = load_settings(environ)
    except SettingsError as error:
        _say("error", error.problems)
        return None
    _say("warning", settings.warnings)
    problems = find_problems(settings)
    _say("error", problems)
    return None if problems else settings


def _say(severity: str, lines: Sequence[str]) -> None:
    for line in lines:
        sys.stderr.write(f"registry-proxy: {severity}: {line}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
