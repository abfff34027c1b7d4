#!/bin/sh
# A table beside the rows of the kv below it, and compaction beside readers:
#   bench/table.sh [ROUNDS [CELLS_TO_COMPACT [DIR]]]     3 rounds, 10,000,000 cells, a folder on the disk of /var/tmp
set -eu
[ -n "${BENCH_MACHINE:-}" ] || exec python3 "$(dirname "$0")/common.py" "$0" "$@" # says whether the machine was ours
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
work=$(mktemp -d "${3:-/var/tmp}/lockstep-bench.XXXXXX")
trap 'rm -rf "$work"' EXIT
make -s -j"$(nproc)" BUILD="$BUILD" "$BUILD/bench/table_bench"
"$BUILD/bench/table_bench" "$work" "${1:-3}" "${2:-10000000}"
