#!/bin/sh
# Serving: the batch without the network, then what clients see over HTTP.
#     [PEERS=PYTHON] [LLAMA_SERVER=PATH] bench/serve.sh [threads [rounds [isa]]]
# With PEERS, a Python that has llama-cpp-python, gguf and numpy, llama.cpp's batch takes turns with ours, then serve_http.py
# (alone: PEERS bench/serve_http.py LOCKSTEP -h) measures the server, in turns with llama-server where LLAMA_SERVER says which.
# llama-server of the version that llama-cpp-python has, outside of this folder:
#     pip download --no-binary :all: --no-deps llama-cpp-python==0.3.36 && tar xzf llama_cpp_python-0.3.36.tar.gz
#     cmake -B llama -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DLLAMA_BUILD_TESTS=OFF -DLLAMA_USE_PREBUILT_UI=OFF \
#         llama_cpp_python-0.3.36/vendor/llama.cpp
#     cmake --build llama --target llama-server
# BENCH_DTYPE=q8, q4 or bf16 narrows both models first (the batch's part only); alone: BENCH_DTYPE=q8 build/bench/batch_bench.
# It chooses instructions when it is compiled: for isa = avx2 build another one, with -DGGML_NATIVE=OFF -DGGML_AVX2=ON
# -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON instead (llama-cpp-python's batch stays as it was installed).
set -e
[ -n "${BENCH_MACHINE:-}" ] || exec python3 "$(dirname "$0")/common.py" "$0" "$@" # says whether the machine was ours
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
threads=${1:-$(nproc)}
make -s -j"$(nproc)" BUILD="$BUILD" all "$BUILD/bench/batch_bench"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
for i in $(seq "${2:-1}"); do
    LOCKSTEP_BENCH_PLAIN=1 "$BUILD/bench/batch_bench" "$threads" llama ${3:+"$3"} | sed "s/^/ours /" >>"$work/lines"
    [ -z "$PEERS" ] || "$PEERS" bench/peer_llama_batch.py "$threads" 2>/dev/null | sed "s/^/peer /" >>"$work/lines"
done
awk '{ if (!(($1, $2) in n) && $1 == "ours") order[++keys] = $2
       v[$1, $2, ++n[$1, $2]] = $3 }
     function middle(who, key,   c, i, j, x, t) {
         c = n[who, key]
         for (i = 1; i <= c; i++) { x = v[who, key, i]; for (j = i; j > 1 && t[j - 1] > x; j--) t[j] = t[j - 1]; t[j] = x }
         return c ? t[int((c + 1) / 2)] : 0 }
     END { printf "%-22s %12s %12s %8s\n", "", "Lockstep", "llama.cpp", "ratio"
           for (i = 1; i <= keys; i++) { a = middle("ours", order[i]); b = middle("peer", order[i])
               printf "%-22s %12.4g %12s %8s\n", order[i], a, b ? sprintf("%.4g", b) : "", b ? sprintf("%.2f", a / b) : "" } }' "$work/lines"
[ -z "$PEERS" ] || LOCKSTEP_ISA=${3:-$LOCKSTEP_ISA} "$PEERS" bench/serve_http.py "$BUILD/lockstep" --threads "$threads" --rounds "${2:-1}"
