#!/bin/sh
# The store's rows beside LMDB itself, LevelDB and RocksDB (libleveldb-dev, librocksdb-dev; those that are there), in turns:
#   bench/store.sh [ENTRIES [ROUNDS [DIR]]]       1,000,000 entries, 3 rounds, a folder on the disk of /var/tmp by default
set -eu
[ -n "${BENCH_MACHINE:-}" ] || exec python3 "$(dirname "$0")/common.py" "$0" "$@" # says whether the machine was ours
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
has() { echo "#include <$1/c.h>" | cc -E -x c - >/dev/null 2>&1; }
libs="-Wl,--no-as-needed"
for l in leveldb rocksdb; do
    has $l || { echo "without $l: no $l/c.h (apt-get install lib$l-dev)" && continue; }
    libs="$libs -l$l"
    CPPFLAGS="${CPPFLAGS:-} -DHAVE_$(echo $l | tr a-z A-Z)"
done
export CPPFLAGS
work=$(mktemp -d "${3:-/var/tmp}/lockstep-bench.XXXXXX")
trap 'rm -rf "$work"' EXIT
rm -f "$BUILD/bench/store_bench"
LDFLAGS="$libs -Wl,--as-needed" make -s -j"$(nproc)" BUILD="$BUILD" "$BUILD/bench/store_bench"
"$BUILD/bench/store_bench" "$work" "${1:-1000000}" "${2:-3}"
