#!/bin/sh
# Builds and runs bench/reduce_bench.c over shared memory and over messages:  bench/reduce.sh [ranks [rounds]]
set -e
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build/bench}
make -s -j"$(nproc)" BUILD="$BUILD" FLOORS="base math store cluster data model train" "$BUILD/bench/reduce_bench"
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
for shared in yes no; do
  LOCKSTEP_SHARED_MEMORY=$shared mpirun --quiet -n "${1:-2}" --oversubscribe --bind-to none "$BUILD/bench/reduce_bench" "${2:-15}"
done
