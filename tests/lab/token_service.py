"""Starting the token server, and with another token lifetime when a test wants one."""

import os
import sys
from pathlib import Path

from lab.access_log import AccessLog, LogFile
from lab.addresses import Address
from lab.pki import Pki
from lab.programs import Program

DEFAULT_LIFETIME_S = 300
_TESTS = Path(__file__).parents[1]


class TokenService:
    """The token server as a program. Registries accept a token for 60 s after its end (their leeway)."""

    def __init__(self, address: Address, directory: Path, pki: Pki) -> None:
        self.address = address
        self._directory = directory
        self._pki = pki
        self._lifetime_s = DEFAULT_LIFETIME_S
        self._program: Program | None = None
        directory.mkdir(parents=True)
        self.log = AccessLog(LogFile(directory / "requests.log", lambda: None))

    def start(self) -> None:
        """Start it, or do nothing when it runs."""
        if self._program is not None and self._program.is_running:
            return
        command = [sys.executable, "-m", "lab.token_server", "--host", self.address.host]
        command += ["--port", str(self.address.port), "--lifetime", str(self._lifetime_s)]
        command += ["--certificate", str(self._pki.certificate_file), "--key", str(self._pki.key_file)]
        command += ["--token-certificate", str(self._pki.token_certificate_file)]
        command += ["--token-key", str(self._pki.token_key_file), "--log", str(self._directory / "requests.log")]
        environment = {"PATH": os.defpath, "PYTHONPATH": str(_TESTS)}
        self._program = Program(
            "token-server", command, self._directory, environment=environment, listens_on=self.address
        )
        self._program.start()

    def stop(self) -> None:
        """Stop it; new connections are refused."""
        if self._program is not None:
            self._program.kill()

    def set_lifetime(self, lifetime_s: int = DEFAULT_LIFETIME_S) -> None:
        """Restart it with another lifetime of tokens."""
        self.stop()
        self._lifetime_s = lifetime_s
        self.start()
