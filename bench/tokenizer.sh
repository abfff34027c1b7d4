#!/bin/sh
# Times training and encoding on a text, in turns with other libraries where their Python is given:
#   bench/tokenizer.sh [FILE [VOCAB [OPTION...]]]     PEERS=/path/to/venv/bin/python  TOKENIZER=gpt2.json (encode with this one)
# Default: the 40 MB of bench/text.sh, a vocabulary of 32,768, GPT-2's pattern. Options: bench/tokenizer_peers.py, as
# --patterns llama3,o200k,cl100k,qwen2,smollm.
set -eu
[ -n "${BENCH_MACHINE:-}" ] || exec python3 "$(dirname "$0")/common.py" "$0" "$@" # says whether the machine was ours
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
file=${1:-$work/text}
vocab=${2:-32768}
[ $# -gt 0 ] && shift
[ $# -gt 0 ] && shift
[ -e "$file" ] || bench/text.sh "$file"
make -s -j"$(nproc)" BUILD="$BUILD" "$BUILD/bench/tokenizer_bench"
bench=$BUILD/bench/tokenizer_bench
exec_with=${PEERS:-python3}
libs=lockstep
[ -z "${PEERS:-}" ] || libs=lockstep,gigatoken,tiktoken,tokenizers
[ -z "${TOKENIZER:-}" ] || vocab=0
"$exec_with" bench/tokenizer_peers.py "$bench" "${TOKENIZER:--}" "$file" "$vocab" --libs "$libs" "$@"
