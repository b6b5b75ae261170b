"""Which version this is: the bundle is run from its folder, where no installed package tells it."""

VERSION = "0.1.0"
"""As in pyproject.toml, which a test compares."""
