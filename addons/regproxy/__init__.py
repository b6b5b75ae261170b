"""registry-proxy: a caching, credential-injecting, intercepting proxy for container registries."""

__version__ = "0.1.0"
