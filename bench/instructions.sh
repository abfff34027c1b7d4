#!/bin/bash
# bench/instructions.sh LOCKSTEP [--update]: counts the instructions of fixed work under callgrind and compares them with
# bench/instructions.txt. A count does not see the machine's noise, so a change of a percent is a change of the code. One thread, AVX2
# (callgrind knows no AVX-512). Other compilers and C libraries count differently: the file names those it was made with.
# Needs the Debian packages valgrind and bible-kjv.
set -euo pipefail
lockstep=$(realpath "$1")
here=$(dirname "$(realpath "$0")")
list=$here/instructions.txt
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export LOCKSTEP_STORE=$work/store LOCKSTEP_ISA=avx2 LC_ALL=C
cd "$work"
command -v valgrind >/dev/null || { echo "bench-check: valgrind is missing: apt-get install valgrind" >&2; exit 1; }
allowed=1.0 # percent
kernels=$(dirname "$lockstep")/bench/instructions
make -s -C "$here/.." BUILD="$(dirname "$lockstep")" "$kernels" >/dev/null # an old one would be counted and written down

bible gen1:1-gen50:26 >text.txt
"$lockstep" tokenizer train text.txt --vocab 1024 --name t >/dev/null 2>&1
"$lockstep" dataset build d text.txt --tokenizer t >/dev/null 2>&1
printf '%s\n' "[run]" name=made steps=1 "[data]" dataset=d "[model]" layers=1 width=64 heads=2 context=64 vocab=1024 "[batch]" sequences=1 \
    grains=1 "[eval]" every=0 >made.ini
"$lockstep" train made.ini --threads 1 >/dev/null 2>&1

count() { # name, command...
    local name=$1 sum
    shift
    valgrind --tool=callgrind --callgrind-out-file=out --log-file=log "$@" >stdout 2>stderr || { tail -n 5 stderr log >&2; exit 1; }
    sum=$(sed -n 's/^\(summary\|totals\): //p' out | tail -n 1)
    echo "$name $((sum - ${start:-0}))"
}
measure() {
    local start # of a program that runs no kernel
    start=$(count none "$kernels" none | cut -d' ' -f2)
    for k in $("$kernels"); do count "$k" "$kernels" "$k"; done
    start=0
    count help "$lockstep" help
    count tokenizer-train "$lockstep" tokenizer train text.txt --vocab 1024 --threads 1 --name other
    count tokenizer-encode "$lockstep" tokenizer encode t text.txt
    count dataset-build "$lockstep" dataset build other text.txt --tokenizer t --threads 1
    count generate "$lockstep" generate made "In the beginning" --tokens 20 --threads 1
    count runs-list "$lockstep" runs list
}
measure >now.txt
about="# $(cc --version | head -n 1); $(ldd --version | head -n 1); $(valgrind --version)"
if [ "${2:-}" = --update ]; then
    { echo "# Instructions of fixed work, made by bench/instructions.sh --update:" && echo "$about" && cat now.txt; } >"$list"
    cat "$list"
    exit
fi
[ "$(sed -n 2p "$list")" = "$about" ] || echo "bench-check: the committed figures are of other tools: $(sed -n 2p "$list")"
awk -v allowed=$allowed 'NR == FNR { if ($1 != "#") old[$1] = $2; next }
    { percent = 100 * ($2 / old[$1] - 1); bad = !old[$1] || percent > allowed
      printf "%-18s %15d %15d %+7.2f%% %s\n", $1, old[$1], $2, percent, bad ? "MORE" : percent < -allowed ? "less: bench/instructions.sh --update" : ""
      worse += bad }
    END { exit worse > 0 }' "$list" now.txt || { echo "bench-check: some work takes more instructions than before"; exit 1; }
echo "bench-check: ok"
