"""Which registry a target is of, and whether anything of it is stored at all."""

from typing import Literal

from regproxy.oci.names import Registry
from regproxy.policy.interception import find_pattern, is_intercepted
from regproxy.policy.targets import Target
from regproxy.settings import Settings
from regproxy.stack.admin.queries import RequestError


def registry_of(settings: Settings, target: Target) -> tuple[Registry, Literal["http", "https"]]:
    """Return the registry of a target, and how it is spoken to. Raises RequestError when it is not intercepted."""
    registry = Registry.parse(target.registry or "")
    patterns = (*settings.registries, *settings.mirrored)
    if not is_intercepted(registry.host, registry.port, patterns):
        raise RequestError(400, f"{registry} is none of REGISTRIES: nothing of it is stored")
    pattern = find_pattern(registry.host, registry.port, patterns)
    return registry, "http" if pattern is not None and pattern.plain_http else "https"
