#!/bin/sh
# Times training and encoding on a text, in turns with other libraries where their Python is given:
#   bench/tokenizer.sh [FILE [VOCAB [OPTION...]]]     PEERS=/path/to/venv/bin/python  TOKENIZER=gpt2.json (encode with this one)
# Default: the 40 MB of bench/text.sh, a vocabulary of 32,768. Options: bench/tokenizer_peers.py.
set -eu
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
file=${1:-$work/text}
vocab=${2:-32768}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] && shift
[ -e "$file" ] || bench/text.sh "$file"
make -s BUILD="$BUILD" "$BUILD/liblockstep.a"
${CC:-cc} -std=c11 -O2 -D_GNU_SOURCE -Iinclude -o "$work/bench" bench/tokenizer_bench.c "$BUILD/liblockstep.a" \
    -llmdb -linih -ljansson -lzstd -lz -lcrypto -lm -pthread
[ -n "${TOKENIZER:-}" ] || "$work/bench" train "$vocab" "$file" "$(nproc)" "$work/t.json" >/dev/null
exec_with=${PEERS:-python3}
libs=lockstep
[ -z "${PEERS:-}" ] || libs=lockstep,gigatoken,tiktoken,tokenizers
[ -z "${TOKENIZER:-}" ] || vocab=0
"$exec_with" bench/tokenizer_peers.py "$work/bench" "${TOKENIZER:-$work/t.json}" "$file" "$vocab" --libs "$libs" "$@"
