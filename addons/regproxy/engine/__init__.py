"""The engine room: everything that touches mitmproxy's layers, OpenSSL and client sockets.

`connect_layer` answers CONNECT and builds what follows it; `http_layer` is mitmproxy's HTTP layer with one change: a
response may have its body in a file; `sender` and `channel` move that file to the client without a Python object
larger than one chunk; `authority` and `certificates` give each intercepted host a leaf of our CA. Decisions are not
made here: the stack makes them and the engine asks by hooks.
"""
