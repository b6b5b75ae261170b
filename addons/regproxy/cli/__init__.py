"""The command `registry-proxy`: asks the admin API of a running proxy, and shows what it says.

Apart from everything else: it shares no state with the proxy and runs on any machine.
"""
