"""The language of container registries as typed values.

Repository names, tags, digests, `/v2/` endpoints, byte ranges, media types, error bodies and challenges: text comes in,
a frozen value or a `ValueError` comes out.

Nothing here reads a file, a socket, a clock or a setting, and nothing here decides what the proxy does with a value:
that is `regproxy.policy`. This room imports nothing else of ours.
"""
