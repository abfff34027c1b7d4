#!/bin/sh
# What a checkpoint of GPT-2 124M with its optimizer (1.5 GB) costs, and how fast it is loaded:
#   bench/checkpoint.sh [sequences [context [steps between checkpoints [lockstep train's further arguments]]]]
# Stall: the steps around a save beside the others of the same run, as a share of the default interval of a run of 1,000
# steps (100 steps). Needs 4 GB of memory and 5 GB of disk in TMPDIR.
set -e
[ -n "${BENCH_MACHINE:-}" ] || exec python3 "$(dirname "$0")/common.py" "$0" "$@" # says whether the machine was ours
cd "$(dirname "$0")/.."
BUILD=${BUILD:-build}
sequences=${1:-4} context=${2:-64} every=${3:-10}
[ $# -lt 3 ] && shift $# || shift 3
make -s -j"$(nproc)" BUILD="$BUILD" all "$BUILD/bench/checkpoint_bench"
store=$(mktemp -d)
trap 'rm -rf "$store"' EXIT
export LOCKSTEP_STORE="$store"
bible gen1:1-rev22:21 >"$store/text.txt"
"$BUILD/lockstep" tokenizer train "$store/text.txt" --vocab 4096 --name bench >/dev/null 2>&1
"$BUILD/lockstep" dataset build bench "$store/text.txt" --tokenizer bench >/dev/null 2>&1
cat >"$store/run.ini" <<INI
[data]
dataset=bench
[model]
family=gpt2
layers=12
width=768
heads=12
vocab=50304
context=$context
[batch]
sequences=$sequences
[optimizer]
warmup=0
[eval]
every=0
[checkpoint]
every=$every
INI
"$BUILD/lockstep" train "$store/run.ini" run.name=bench run.steps=$((3 * every + every / 2)) "$@" >/dev/null 2>"$store/log" || { cat "$store/log" >&2; exit 1; }
"$BUILD/lockstep" runs log bench --json | python3 -c "
import json, statistics, sys
every = $every
t = [json.loads(line)['seconds'] for line in sys.stdin]
saves = [i for i in range(every, len(t), every)]  # the step after a save has begun is row i
around = 3
near = {i + k for i in saves for k in range(around)}
rest = [x for i, x in enumerate(t) if i > 1 and i not in near]
step = statistics.median(rest)
stalls = [sum(t[i + k] - step for k in range(around) if i + k < len(t)) for i in saves]
stall = statistics.median(stalls)
print(f'GPT-2 124M, $sequences x $context: {step:.3f} s a step; a save costs {stall:.2f} s '
      f'({\", \".join(f\"{x:.2f}\" for x in stalls)}), {100 * stall / (100 * step):.2f}% of 100 steps')"
"$BUILD/bench/checkpoint_bench" "$store" bench
