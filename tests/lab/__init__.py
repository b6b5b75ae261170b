"""A lab of real registries on loopback addresses, for the tests.

Real `docker-registry` servers behind nginx (TLS, one access log format), a token server, a CDN that wants a signature,
an origin that misbehaves on command, skopeo as the client, and the proxy itself started by `entrypoint.sh`. Every name
ends at a 127.0.x.y address claimed for this run and nothing outside the run's own directory is touched: no /etc/hosts,
no trust store, no fixed port of the machine. Names are resolved for the proxy by `UPSTREAM_MAPPINGS` and clients never
resolve them, because they send a CONNECT with the name. `python -m lab.serve` (in `tests/`) brings it up by hand.
"""
