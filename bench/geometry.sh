#!/bin/bash
# bench/geometry.sh LOCKSTEP [GEOMETRY...]: fixed matrix products and attention (AVX2, one thread) under cachegrind, once for
# each geometry of caches; counts what the caches miss, and predicts products' share of the FMA peak from it. So a change that
# is bad for a small cache shows on a machine with a large one. A GEOMETRY is NAME=SIZE/WAYS,SIZE/WAYS of L1 and L2; without
# any, those below.
#   --check: compares read misses of L2 with bench/geometry.txt, for two small geometries; --update writes that file.
#   ONLY=attention: of all names only those that begin so; --update then keeps the other lines.
# Misses are given for 1,000 cycles of FMA (two fma of 8 floats a cycle). The model is a Zen 3's (docs/performance.md): 1,000
# FMA cycles take 1,087 + 10 a miss; attention, which also has exponentials, has no model. cachegrind ignores what is
# prefetched, so the misses are an upper bound.
# Needs the Debian package valgrind.
set -euo pipefail
lockstep=$(realpath "$1")
shift
here=$(dirname "$(realpath "$0")")
list=$here/geometry.txt
program=$(dirname "$lockstep")/bench/geometry
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
command -v valgrind >/dev/null || { echo "geometry: valgrind is missing: apt-get install valgrind" >&2; exit 1; }
make -s -C "$here/.." BUILD="$(dirname "$lockstep")" "$program" >/dev/null
all="haswell=32K/8,256K/8 skylake-client=32K/8,256K/4 zen2-zen3=32K/8,512K/8 zen4=32K/8,1024K/8 zen5=48K/12,1024K/16
     skylake-server=32K/8,1024K/16 icelake-server=48K/12,1280K/20 graviton=64K/4,1024K/8"
allowed=5 # percent
mode=show
case ${1:-} in --check | --update) mode=${1#--} all="zen2-zen3=32K/8,512K/8 haswell=32K/8,256K/8" && shift ;; esac

bytes() { echo $((${1%K} * 1024)); }
# misses GEOMETRY ARGUMENTS...: instructions, read misses of L1, of L2
misses() {
    local l1=${1%,*} l2=${1#*,}
    LOCKSTEP_ISA=avx2 LOCKSTEP_CACHES=$1 valgrind --tool=cachegrind --cachegrind-out-file="$work/out" --log-file="$work/log" \
        --D1="$(bytes "${l1%/*}"),${l1#*/},64" --LL="$(bytes "${l2%/*}"),${l2#*/},64" "$program" "${@:2}" ||
        { tail -n 5 "$work/log" >&2; exit 1; }
    awk '/^summary:/ { print $2, $6, $7 }' "$work/out" # events: Ir I1mr ILmr Dr D1mr DLmr ...
}
measure() {
    for geometry in ${*:-$all}; do
        "$program" | grep "^${ONLY:-}" | while read -r name cycles; do
            read -r i0 a0 b0 <<<"$(misses "${geometry#*=}" "$name" none)"
            read -r i1 a1 b1 <<<"$(misses "${geometry#*=}" "$name")"
            awk -v g="${geometry%%=*}" -v p="$name" -v cycles="$cycles" -v i=$((i1 - i0)) -v a=$((a1 - a0)) -v b=$((b1 - b0)) 'BEGIN {
                printf "%-15s %-19s %8.1f %8.1f %8.2f %7s\n", g, p, a * 1000 / cycles, b * 1000 / cycles, i / cycles,
                    p ~ /^attention/ ? "-" : sprintf("%.0f%%", 100000 / (1087 + 10000 * b / cycles)) }'
        done
    done
}
head="geometry        product             L1/1000  L2/1000  instr/cy  predicted"
about="# $(cc --version | head -n 1); $(valgrind --version)"
if [ $mode = show ]; then
    echo "$head" && measure "$@"
    exit
fi
measure >"$work/now.txt"
if [ $mode = update ]; then
    { echo "# Read misses of simulated caches, made by bench/geometry.sh --update:" && echo "$about" && echo "# $head" && awk -v only="${ONLY:-}" '
        only == "" || $1 == "#" || index($2, only) == 1 { next } 1' "$list" && cat "$work/now.txt"; } >"$work/list.txt"
    mv "$work/list.txt" "$list" && cat "$list"
    exit
fi
awk -v allowed=$allowed 'NR == FNR { if ($1 != "#") old[$1 " " $2] = $4; next }
    { was = old[$1 " " $2]; bad = was == "" || $4 > was * (1 + allowed / 100) + 0.5; worse += bad
      printf "%-15s %-19s %8.1f %8.1f %s\n", $1, $2, was, $4, bad ? "MORE" : "" }
    END { exit worse > 0 }' "$list" "$work/now.txt" || { echo "geometry: some product misses L2 more often than before"; exit 1; }
echo "geometry: ok"
