"""The lab by hand: `python -m lab.serve` in `tests/` starts every server, pushes two images and waits for Ctrl-C."""

import argparse
import contextlib
import shlex
import signal
import sys
import tempfile
from pathlib import Path

from lab.image import make_image
from lab.lab import HUB, Lab

_ENDING = (signal.SIGINT, signal.SIGTERM)


def describe(lab: Lab) -> str:
    """Return what to type: the proxy's environment as a shell file, and pulls to try."""
    exports = "\n".join(f"export {name}={shlex.quote(text)}" for name, text in lab.proxy_settings.items())
    servers = "\n".join(f"#   {name:34} {address}" for name, address in lab.addresses.items())
    return f"""\
# the lab in {lab.directory}; names and where they end (edge and origin names have no server here):
{servers}
# alice/secret on basic.lab.test and token.lab.test; library/small and library/multi:latest are in every registry
# access logs, below {lab.directory}:
#   NAME/front/requests.log, cdn.lab.test/requests.log, auth.lab.test/requests.log
# --- for the proxy:
{exports}
# --- a pull through it (CA: the proxy's own, for example var/ca/ca.crt):
# HTTPS_PROXY=http://127.0.0.1:3128 SSL_CERT_FILE=var/ca/ca.crt SSL_CERT_DIR=/nonexistent \\
#   skopeo --insecure-policy copy docker://noauth.lab.test/library/small:latest dir:/tmp/small
# --- a pull without it:
# SSL_CERT_FILE={lab.pki.ca_file} skopeo inspect docker://{lab.noauth.address}/library/small:latest
"""


def serve(directory: Path, layer_bytes: int) -> None:
    """Run the lab until INT or TERM; earlier ones are a KeyboardInterrupt."""
    with Lab(directory) as lab:
        small = make_image(directory / "small", seed="small", layer_bytes=layer_bytes)
        multi = make_image(directory / "multi", seed="multi", layer_bytes=layer_bytes, architectures=("amd64", "arm64"))
        for registry in (lab.noauth, lab.other):
            lab.push(small, "library/small", to=registry)
            lab.push(multi, "library/multi", to=registry)
        started = (lab.basic, lab.token, lab.redirect, lab.hub)
        (directory / "environment").write_text(describe(lab))
        sys.stdout.write(describe(lab))
        sys.stdout.write(
            f"# up: {' '.join(r.name for r in (lab.noauth, lab.other, *started))} ({HUB} is Docker Hub's look-alike)\n"
        )
        # blocked until awaited: a signal right after the announcement is not lost
        signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
        sys.stdout.write(f"# this text: {directory}/environment. Ctrl-C ends it.\n")
        sys.stdout.flush()
        signal.sigwait(_ENDING)


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(description="Start the lab of registries and wait for Ctrl-C.")
    parser.add_argument("--directory", type=Path, help="a new folder to keep; default: a temporary one")
    parser.add_argument("--layer-bytes", type=int, default=1_000_000, help="size of each layer of the two images")
    chosen = parser.parse_args()
    for number in _ENDING:
        signal.signal(number, signal.default_int_handler)
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(contextlib.suppress(KeyboardInterrupt))
        directory: Path | None = chosen.directory
        if directory is None:
            directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="lab-")))
        else:
            directory.mkdir(parents=True)
        serve(directory.resolve(), chosen.layer_bytes)


if __name__ == "__main__":
    main()
