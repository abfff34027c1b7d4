#!/bin/bash
# What must hold of the program as a whole: no libm in numerics, floors, a host's floating-point settings.
. "$(dirname "$0")/lib.sh"
ROOT=$HERE/../..

# The objects that compute: nothing of libm, which differs from machine to machine.
objects() { find "$BUILD_DIR" -path "$BUILD_DIR/arm64*" -prune -o -path "$BUILD_DIR/san-*" -prune -o -path "$BUILD_DIR/other" -prune -o -name '*.o' -print | grep -E "$1" | grep -v _test.o; }
BUILD_DIR=$(cd "$(dirname "$LOCKSTEP")" && pwd)
LIBM='^(a?(sin|cos|tan)h?|sincos|exp2?|expm1|exp10|log(2|10|1p|b)?|l?gamma|pow|sqrt|cbrt|hypot|fma|fmod|remainder|erfc?|[jy][01n]|nearbyint|l?l?rint|l?l?round|floor|ceil|trunc|ldexp|frexp|scalbn|nextafter|atan2|fabs|fmin|fmax)[fl]?(@.*)?$'
for floor in math model train serve; do
    list=$(objects "/src/$floor/")
    [ -n "$list" ] || { not_ok "objects of src/$floor"; continue; }
    equal "src/$floor calls nothing of libm" "none$({ nm -u $list || echo "x exp"; } 2>&1 | awk '{ print $2 }' | grep -E "$LIBM" | sort -u)" none
done
check "make alone makes all" grep -q "^.DEFAULT_GOAL := all$" <(make -C "$ROOT" -pn -s help 2>/dev/null)
check "floors use only those below them" "$ROOT/tools/layers.sh"
check "one sentence a line in Markdown" "$ROOT/tools/prose.sh"
for goal in "unit ONLY=src/base/ini_test" "e2e ONLY=cli" "test-compilers ONLY=clang"; do
    check "make $goal is understood" make -n -C "$ROOT" BUILD="${BUILD:-build}" $goal
done
fails "a unit test that is not there" 2 -- make -C "$ROOT" BUILD="${BUILD:-build}" unit ONLY=src/base/no_test
said "is named" "ONLY=src/base/no_test is no unit test"

# A host program that flushes to zero and rounds towards zero.
quiet "$TOOLS/bare" plain 5
for isa in $(isas); do
    check "$isa: a host with other floating-point settings has them back" env LOCKSTEP_ISA=$isa "$TOOLS/bare" host-$isa 5 host
    check "$isa: and gets the same bits" cmp plain host-$isa
done
finish
