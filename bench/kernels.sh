#!/bin/sh
# Builds and runs bench/matmul_bench.c or bench/attention_bench.c:  bench/kernels.sh matmul|attention [threads] [isa] ...
set -e
cd "$(dirname "$0")/.."
what=$1
shift
BUILD=${BUILD:-build/bench}
make -s BUILD="$BUILD" FLOORS="base math" all
${CC:-cc} -std=c11 -O2 -D_GNU_SOURCE -Wall -Wextra -Iinclude -Isrc -Ibench -o "$BUILD/${what}_bench" "bench/${what}_bench.c" "$BUILD/liblockstep.a" -lcrypto -ljansson -linih -lm -pthread
exec "$BUILD/${what}_bench" "$@"
