#!/bin/bash
# Floors: a file of src/FLOOR includes public headers of its floor and those below, and private headers of its own floor only.
# base/syscalls.h is for every floor, yet not installed. A public header belongs to the floor that implements it.
set -u
cd "$(dirname "$0")/.." || exit 1
order="base math store cluster data model train serve lab cmd"
owner() {
    case $1 in
    err | file | hash | ini | json | mem | progress | random | thread) echo base ;;
    kernels) echo math ;;
    blob | kv | store) echo store ;;
    comm) echo cluster ;;
    chat | dataset | tokenizer) echo data ;;
    model | models) echo model ;;
    train) echo train ;;
    generate) echo serve ;;
    lab) echo lab ;;
    *) echo unknown ;;
    esac
}
level() {
    local i=0 f
    for f in $order; do
        [ "$f" = "$1" ] && echo $i && return
        i=$((i + 1))
    done
    echo 99
}
# Tests, and headers that only tests include, may look anywhere.
of_tests() {
    case $1 in
    *_test.c) return 0 ;;
    src/*.h) ! grep -lrE "include \"(.*/)?$(basename "$1")\"" src --include='*.c' | grep -qv '_test\.c$' ;;
    *) return 1 ;;
    esac
}
bad=0
complain() { echo "$1" && bad=1; }
while IFS=: read -r file line text; do
    header=$(sed 's/.*"\(.*\)".*/\1/' <<<"$text")
    case $file in
    include/lockstep/*) floor=$(owner "$(basename "$file" .h)") ;;
    *) floor=$(cut -d/ -f2 <<<"$file") ;;
    esac
    case $header in
    lockstep/*)
        other=$(owner "$(basename "$header" .h)")
        [ "$other" != unknown ] || complain "$file:$line: $header belongs to no floor: add it to tools/layers.sh"
        [ "$(level "$other")" -le "$(level "$floor")" ] || of_tests "$file" || complain "$file:$line: floor $floor includes $header of the floor $other above it"
        ;;
    base/syscalls.h) ;;
    */*)
        other=$(cut -d/ -f1 <<<"$header")
        [ -e "$(dirname "$file")/$header" ] || [ "$other" = "$floor" ] || of_tests "$file" || complain "$file:$line: floor $floor includes the private $header of another"
        ;;
    esac
done < <(grep -nE '^ *# *include "' -r src include --include='*.c' --include='*.h')
exit $bad
