"""Real container clients, each on a small machine of its own (`cell`), behind one small interface (`client`).

They reach registries by their real names through the proxy door, or through the mirror door of the same proxy. No name
of the lab is resolved by a client: through the proxy door it is sent in a CONNECT, through the mirror door the client
knows only the mirror.
"""
