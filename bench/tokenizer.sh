#!/bin/sh
# Times training and encoding on a text, beside other libraries where their Python is given:
#   bench/tokenizer.sh [FILE [VOCAB]]        PEERS=/path/to/venv/bin/python  TOKENIZER=gpt2.json (encode with this one)
# Default: the King James Bible of Debian's package bible-kjv, a vocabulary of 4,096.
set -eu
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
file=${1:-$work/kjv.txt}
vocab=${2:-4096}
[ $# -gt 0 ] || bible gen1:1-rev22:21 >"$file"
make -s BUILD="$BUILD" "$BUILD/liblockstep.a"
${CC:-cc} -std=c11 -O2 -D_GNU_SOURCE -Iinclude -o "$work/bench" bench/tokenizer_bench.c "$BUILD/liblockstep.a" \
    -llmdb -linih -ljansson -lzstd -lz -lcrypto -lm -pthread
threads="1 $(nproc)"
[ "$(nproc)" -gt 1 ] || threads=1
echo "$(wc -c <"$file") bytes, vocabulary $vocab"
for t in $threads; do
    echo "threads $t: $("$work/bench" train "$vocab" "$file" "$t" "$work/t.json")"
done
json=${TOKENIZER:-$work/t.json}
for t in $threads; do
    echo "threads $t: $("$work/bench" encode "$json" "$file" "$t")"
done
[ -z "${PEERS:-}" ] || "$PEERS" bench/tokenizer_peers.py "$json" "$file" "$vocab"
