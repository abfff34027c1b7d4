#!/bin/sh
# Builds and runs bench/matmul_bench.c or bench/attention_bench.c:  bench/kernels.sh matmul|attention [threads] [isa] ...
set -e
[ -n "${BENCH_MACHINE:-}" ] || exec python3 "$(dirname "$0")/common.py" "$0" "$@" # says whether the machine was ours
cd "$(dirname "$0")/.."
what=$1
shift
BUILD=${BUILD:-build/bench}
make -s -j"$(nproc)" BUILD="$BUILD" FLOORS="base math" "$BUILD/bench/${what}_bench"
exec "$BUILD/bench/${what}_bench" "$@"
