"""The settings room: environment and YAML in, one frozen `Settings` out.

`grammar` parses single values, `credentials` the list of logins, `sources` finds the raw text of every variable,
`loading` turns the raw texts into `Settings`, and `preflight` asks the machine (port, directories, files) whether they
can work. `table` is the one list of all variables: defaults are parsed from it, and the documentation is tested against
it. Nothing here knows mitmproxy, and only `sources`, `credentials` (password files) and `preflight` touch the machine.
"""

from regproxy.settings.loading import load_settings
from regproxy.settings.model import Compat, LogFormat, LogLevel, Settings, SettingsError

__all__ = ["Compat", "LogFormat", "LogLevel", "Settings", "SettingsError", "load_settings"]
