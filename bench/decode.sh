#!/bin/sh
# Generation beside the memory's speed, the prompt beside training's forward pass:  bench/decode.sh [threads [gpt2|llama ...]]
# With PEERS=PYTHON (one that has llama-cpp-python, gguf, numpy) llama.cpp reads and draws as many tokens with the same llama.
set -e
[ -n "${BENCH_MACHINE:-}" ] || exec python3 "$(dirname "$0")/common.py" "$0" "$@" # says whether the machine was ours
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
threads=${1:-$(nproc)}
[ $# -eq 0 ] || shift
make -s -j"$(nproc)" BUILD="$BUILD" all "$BUILD/bench/decode_bench"
for family in ${*:-gpt2 llama}; do
    "$BUILD/bench/decode_bench" "$threads" "$family"
    [ "$family" = llama ] && [ -n "$PEERS" ] || continue
    "$PEERS" bench/peer_llama.py "$threads" 200 512 2>/dev/null | awk '
        { n = 0; for (i = 2; i <= NF; i++) t[++n] = $i
          for (i = 2; i <= n; i++) { x = t[i]; for (j = i; j > 1 && t[j - 1] > x; j--) t[j] = t[j - 1]; t[j] = x }
          m = t[int(n / 2) + 1] }
        $1 == "decode" { printf "llama.cpp decode   %7.2f ms a token, %6.1f tokens/s  %6.2f GB/s of weights\n", m * 1e3, 1 / m, 0.4567 / m }
        $1 == "prefill" { printf "llama.cpp prefill  %7.1f tokens/s\n", 512 / m }'
done
