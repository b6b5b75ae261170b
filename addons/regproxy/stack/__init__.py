"""The stack: mitmproxy addons, one small one a file, in the order in which `registry_proxy.py` lists them.

An addon reads the flow, calls the decision in `policy` or `oci`, asks `store` or `origin`, and writes the answer.
`core` is what they share, `exchange` what is known of one request, `answers` how responses are built.
"""
