"""skopeo as the client: pulls through a proxy by the real names, pushes straight to an address."""

import hashlib
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from lab.addresses import Address
from lab.image import Image
from lab.programs import LabError, find_program

_LIMIT_S = 110.0


class Skopeo:
    """Runs skopeo with a home of its own. Trusts only `ca_file`; with a proxy, every name is reached through it."""

    def __init__(self, directory: Path, ca_file: Path, proxy: Address | None = None) -> None:
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._environment = {
            "PATH": os.defpath,
            "HOME": str(directory),
            "TMPDIR": str(directory),
            "XDG_RUNTIME_DIR": str(directory),
            "XDG_DATA_HOME": str(directory),
            "XDG_CONFIG_HOME": str(directory),
            # its cache of known blobs belongs in our folder, also when the tests run as root
            "_CONTAINERS_ROOTLESS_UID": "1000",
            "REGISTRY_AUTH_FILE": str(directory / "auth.json"),
            "SSL_CERT_FILE": str(ca_file),
            "SSL_CERT_DIR": "/nonexistent",
        }
        if proxy is not None:
            self._environment["HTTPS_PROXY"] = f"http://{proxy}"

    def pull(
        self,
        reference: str,
        destination: Path,
        *,
        transport: str = "dir",
        credentials: str | None = None,
        all_platforms: bool = False,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Copy `registry/name:tag` to the folder `destination`; LabError when it fails and `check` is set."""
        options = ["--all"] if all_platforms else []
        if credentials is not None:
            options += ["--src-creds", credentials]
        target = f"{transport}:{destination}" + (":image" if transport == "oci" else "")
        return self.run(["copy", *options, f"docker://{reference}", target], check=check)

    def push(
        self,
        image: Image,
        reference: str,
        *,
        manifest_format: str | None = None,
        credentials: str | None = None,
    ) -> str:
        """Copy all platforms of `image` to `registry/name:tag` and return the digest that the tag then has.

        LabError when it fails; for a push that must fail use `run(["copy", "--all", image.source, ...], check=False)`.

        `manifest_format` is `oci` (as built, the default) or `v2s2` for Docker's media types.
        """
        digest_file = self._directory / f"digest-{hashlib.sha256(reference.encode()).hexdigest()}"
        options = ["--all", "--digestfile", str(digest_file)]
        options += ["--format", manifest_format] if manifest_format is not None else ["--preserve-digests"]
        if credentials is not None:
            options += ["--dest-creds", credentials]
        self.run(["copy", *options, image.source, f"docker://{reference}"])
        return digest_file.read_text().strip()

    def run(self, arguments: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run any skopeo command for the linux/amd64 platform."""
        command = [find_program("skopeo"), "--insecure-policy", "--override-arch", "amd64", "--override-os", "linux"]
        completed = subprocess.run(
            [*command, *arguments],
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_LIMIT_S,
            check=False,
        )
        if check and completed.returncode != 0:
            raise LabError(f"skopeo {' '.join(arguments)}: exit code {completed.returncode}\n{completed.stderr}")
        return completed


def hash_files(directory: Path) -> dict[str, str]:
    """Return the sha256 of every file below `directory` by its relative path."""
    hashes: dict[str, str] = {}
    for file in sorted(path for path in directory.rglob("*") if path.is_file()):
        with file.open("rb") as content:
            hashes[str(file.relative_to(directory))] = hashlib.file_digest(content, "sha256").hexdigest()
    return hashes
