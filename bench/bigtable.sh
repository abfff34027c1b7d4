#!/bin/bash
# bench/bigtable.sh [ROWS] [SECONDS]: `lockstep table serve` beside Google's in-memory emulator, by Google's Go client: filling a table,
# point reads and writes on 16 streams, a scan, and the server's memory. Needs what `make test-clients-table` installs.
set -eu
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
rows=${1:-1000000} seconds=${2:-5}
bin=$BUILD/clients-table/bin
[ -x "$bin/client" ] && [ -x "$bin/emulator" ] || { echo "make test-clients-table builds the clients first (it needs Go)"; exit 1; }
dir=$(mktemp -d "${TMPDIR:-/tmp}/lockstep-bench.XXXXXX")
pid=
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null || true; wait; rm -rf "$dir"' EXIT
memory() { awk '/^(RssAnon|VmHWM)/ { printf "%s %.0f MiB   ", $1, $2 / 1024 } END { print "" }' "/proc/$pid/status"; }
measure() { # NAME PORT
    echo "== $1"
    BIGTABLE_EMULATOR_HOST=127.0.0.1:$2 "$bin/client" bench "$rows" "$seconds"
    memory
}
ours() {
    "$BUILD/lockstep" table serve --store "$dir/store" --listen "127.0.0.1:$1" >"$dir/out" 2>&1 &
    pid=$!
    for _ in $(seq 100); do grep -qs ^export "$dir/out" && break; sleep 0.05; done
}
stop() { kill "$pid"; wait "$pid" || true; }
ours 18086
measure "lockstep table serve, every write synced" 18086
stop
ours 18086
echo "== the same after a restart, the scan alone"
BIGTABLE_EMULATOR_HOST=127.0.0.1:18086 "$bin/client" scan
memory
stop
"$bin/emulator" -port 18087 >/dev/null 2>&1 &
pid=$!
sleep 1
measure "Google's emulator, which forgets" 18087
stop
pid=
