#!/bin/sh
# Starts the proxy: checks the settings of the environment, then becomes mitmdump, or mitmweb in debug mode. Arguments
# are passed on to it.
# All settings reach the addon through the environment, so that no secret is ever an argument that `ps` shows.
set -eu
umask 077

fail() {
    echo "registry-proxy: error: $1" >&2
    exit 1
}

# A signal ends this when the program that is running has ended: none is left behind. Process 1 of a container would get
# no signal at all that it does not wait for.
trap 'exit 143' TERM
trap 'exit 130' INT
[ "$$" != 1 ] || trap 'exit 0' TERM INT

root=$(dirname -- "$(readlink -f -- "$0")")

# mitmdump and the Python that checks the settings must be of one environment.
if [ -x "$root/.venv/bin/mitmdump" ]; then
    bin=$root/.venv/bin
    mitmdump=$bin/mitmdump
else
    mitmdump=$(command -v mitmdump) || fail "mitmdump is neither in $root/.venv/bin nor in PATH: run make serve"
    bin=$(dirname -- "$(readlink -f -- "$mitmdump")")
fi
python=$bin/python3
[ -x "$python" ] || fail "there is no python3 beside $mitmdump: it cannot check the settings"

# Isolated: no file of the working directory, of PYTHONPATH or of the user's home replaces a module. -I passes over all
# of Python's variables, also over the one that is there for a read-only file system.
isolated=-I
[ -z "${PYTHONDONTWRITEBYTECODE:-}" ] || isolated=-IB

settings() {
    "$python" "$isolated" -c "import runpy, sys; sys.path.insert(0, sys.argv.pop(1))
runpy.run_module('regproxy.settings', run_name='__main__', alter_sys=True)" "$root/addons" "$1"
}

start=$(settings start) || exit "$?"
program=${start%%:*}
cache_directory=${start#*:}

# SQLite's temporary files, where there may be no other directory to write to.
export SQLITE_TMPDIR="$cache_directory"

# With an arena for each thread, the C library keeps some 15 MiB more of what was freed.
export MALLOC_ARENA_MAX="${MALLOC_ARENA_MAX:-2}"

# The addon opens the port when it is ready to answer: without it, nothing listens.
set -- "$bin/$program" --set server=false --set termlog_verbosity=warn -s "$root/addons/registry_proxy.py" --set "confdir=$cache_directory/.mitmproxy" "$@"
[ "$$" = 1 ] || exec "$python" "$isolated" "$@"

# The kernel drops a signal for process 1 that has no handler, and Python has none while it starts. So this shell stays,
# passes signals on, and ends as the proxy does; one that was still starting ends well.
"$python" "$isolated" "$@" &
proxy=$!
trap 'kill -TERM "$proxy" 2>/dev/null || true' TERM INT
while :; do
    code=0
    wait "$proxy" || code=$?
    kill -0 "$proxy" 2>/dev/null || break
done
[ "$code" != 143 ] || code=0
exit "$code"
