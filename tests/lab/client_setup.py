"""The scripts of `/setup/`, run in a throw-away root as `curl ... | sh` runs them."""

import subprocess

from lab.proxy import Proxy
from lab.throwaway_root import ThrowawayRoot, Tree


class ClientSetup:
    """Runs the scripts of one proxy in one root, without a terminal."""

    def __init__(self, proxy: Proxy, root: ThrowawayRoot) -> None:
        self._proxy = proxy
        self._root = root

    def script(self, path: str) -> str:
        """Return the script of `/setup/<path>`."""
        answer = self._proxy.request("GET", f"/setup/{path}")
        assert answer.status == 200, answer.body
        return answer.body.decode()

    def run(self, path: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run it, whatever comes of it."""
        return self._root.run("sh", "-s", "--", *options, script=self.script(path))

    def install(self, path: str) -> subprocess.CompletedProcess[str]:
        """Run it with consent; it must end well."""
        return self._done(path, "--yes")

    def uninstall(self, path: str) -> subprocess.CompletedProcess[str]:
        """Undo it with consent; it must end well."""
        return self._done(path, "--yes", "--uninstall")

    def round(self, path: str) -> Tree:
        """Set up, again, undo, again; return the tree as it was when set up.

        The second run must change nothing and say so, and in the end everything must be as it was.
        """
        before = self._root.tree()
        self.install(path)
        changed = self._root.tree()
        calls = self._root.systemctl_calls()
        assert changed != before

        assert "nothing to change" in self.install(path).stdout
        assert self._root.tree() == changed
        assert self._root.systemctl_calls() == calls

        self.uninstall(path)
        assert self._root.tree() == before
        assert "nothing to undo" in self.uninstall(path).stdout
        return changed

    def _done(self, path: str, *options: str) -> subprocess.CompletedProcess[str]:
        done = self.run(path, *options)
        assert done.returncode == 0, f"{path} {options}\n{done.stdout}{done.stderr}"
        return done
