#!/bin/sh
# How long commands take that people wait for: help, and the list of many runs:  bench/commands.sh [runs [repetitions]]
# The runs are real: each is trained for a step (a minute or two for 1,000).
set -e
[ -n "${BENCH_MACHINE:-}" ] || exec python3 "$(dirname "$0")/common.py" "$0" "$@" # says whether the machine was ours
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
runs=${1:-1000} repetitions=${2:-21}
make -s BUILD="$BUILD" all
store=$(mktemp -d)
trap 'rm -rf "$store"' EXIT
export LOCKSTEP_STORE="$store"
bible gen1:1-50:26 >"$store/text.txt"
"$BUILD/lockstep" tokenizer train "$store/text.txt" --vocab 300 --name bench >/dev/null 2>&1
"$BUILD/lockstep" dataset build bench "$store/text.txt" --tokenizer bench >/dev/null 2>&1
printf '[run]\nsteps=1\n[data]\ndataset=bench\n[model]\nlayers=1\nwidth=16\nheads=1\ncontext=16\n[batch]\nsequences=1\n[optimizer]\nwarmup=0\n' >"$store/run.ini"
seq 0 $((runs - 1)) | xargs -P 4 -I N "$BUILD/lockstep" train "$store/run.ini" run.name=run-N run.seed=N >/dev/null 2>&1
python3 - "$BUILD/lockstep" "$runs" "$repetitions" <<'P'
import statistics, subprocess, sys, time
lockstep, runs, repetitions = sys.argv[1], sys.argv[2], int(sys.argv[3])
commands = [["help"], ["runs", "list"], ["runs", "list", "--json"], ["runs", "show", "run-0"]]
times = [[] for _ in commands]
for _ in range(repetitions):
    for t, c in zip(times, commands):
        began = time.perf_counter()
        subprocess.run([lockstep, *c], stdout=subprocess.DEVNULL, check=True)
        t.append(time.perf_counter() - began)
for t, c in zip(times, commands):
    print(f"lockstep {' '.join(c):18} {1e3 * statistics.median(t):6.1f} ms (least {1e3 * min(t):.1f})" + (f", {runs} runs" if c[0] == "runs" else ""))
P
