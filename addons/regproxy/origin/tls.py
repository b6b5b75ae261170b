"""How upstream certificates are verified."""

import ssl
from pathlib import Path


def tls_context(ca_file: Path | None, *, verify: bool) -> ssl.SSLContext:
    """Return a context with the system's authorities and the operator's. Raises OSError for a bundle that is none."""
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(ca_file)
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
