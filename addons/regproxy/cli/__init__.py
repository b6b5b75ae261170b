"""The command `registry-proxy`: asks the admin API of a running proxy, and shows what it says.

It shares no state with the proxy and runs on any machine; of the other rooms it knows `oci` only, what names and
digests look like.
"""
