#!/bin/sh
# Generation beside the memory's speed, the prompt beside training's forward pass:  bench/decode.sh [threads [gpt2|llama ...]]
set -e
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
threads=${1:-$(nproc)}
[ $# -eq 0 ] || shift
make -s BUILD="$BUILD" all
mkdir -p "$BUILD/bench"
${CC:-cc} -std=c11 -O2 -D_GNU_SOURCE -Wall -Wextra -Iinclude -Isrc -o "$BUILD/bench/decode" bench/decode_bench.c "$BUILD/liblockstep.a" -llmdb -linih -ljansson -lzstd -lz -lcrypto -lm -ldl -pthread
for family in ${*:-gpt2 llama}; do "$BUILD/bench/decode" "$threads" "$family"; done
