#!/bin/sh
# Builds and runs bench/reduce_bench.c over shared memory and over messages:  bench/reduce.sh [ranks [rounds]]
set -e
[ -n "${BENCH_MACHINE:-}" ] || exec python3 "$(dirname "$0")/common.py" "$0" "$@" # says whether the machine was ours
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
make -s -j"$(nproc)" BUILD="$BUILD" all "$BUILD/bench/reduce_bench"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
for shared in yes no; do
  LOCKSTEP_SHARED_MEMORY=$shared mpirun --quiet -n "${1:-2}" --oversubscribe --bind-to none "$BUILD/bench/reduce_bench" "${2:-15}"
done
