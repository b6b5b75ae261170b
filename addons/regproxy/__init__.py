"""registry-proxy: a caching, credential-injecting, intercepting proxy for container registries."""
