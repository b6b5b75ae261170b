"""One setting as an operator sees it."""

from dataclasses import dataclass

FILE_SUFFIX = "_FILE"
"""A secret may be in the file that the variable with this suffix names: environments are shown in many places."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One variable as an operator sees it."""

    variable: str
    default: str = ""
    """The text that is parsed when nothing is set."""
    default_note: str = "unset"
    """What the documentation says when `default` is empty."""
    meaning: str
    in_yaml: str | None = None
    """The YAML key; None: the variable in lower case; empty: not in the YAML file."""
    secret: bool = False
    """True: the value is never shown."""
    empty_counts: bool = False
    """True: an empty value is a value; otherwise it is as good as unset."""
    ignored: bool = False
    """True: accepted because a predecessor had it, and without effect."""
    aliases: tuple[str, ...] = ()
    """Other names of the variable; its own name wins over them."""

    @property
    def yaml_key(self) -> str:
        """The key in the YAML file; empty when it has none."""
        return self.variable.lower() if self.in_yaml is None else self.in_yaml
