#!/bin/bash
# Checks the floors. src/floors lists them, the lowest first. A file of src/FLOOR includes public headers of its own floor and of
# lower floors, and private headers of its own floor only. A public header lies in include/lockstep/FLOOR.
# Names that cross files inside a floor begin with the floor's name or a folder's.
# Messages, NAME.pb-c.h, are their floor's and of those above it.
# base/syscalls.h, base/faults.h and base/sanitizers.h serve every floor, yet are not installed. include/lockstep.h includes every public header.
set -u
cd "$(dirname "$0")/.." || exit 1
mapfile -t floors <src/floors
level() {
    local i
    for i in "${!floors[@]}"; do [ "${floors[i]}" = "$1" ] && echo "$i" && return; done
    echo -1
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
for folder in src/*/ include/lockstep/*/; do
    [ "$(level "$(basename "$folder")")" -ge 0 ] || complain "$folder is no floor: src/floors lists the floors"
done
while IFS=: read -r file line text; do
    header=$(sed 's/.*"\(.*\)".*/\1/' <<<"$text")
    case $file in
    include/lockstep.h) continue ;;
    include/lockstep/*) floor=$(cut -d/ -f3 <<<"$file") ;;
    *) floor=$(cut -d/ -f2 <<<"$file") ;;
    esac
    case $header in
    lockstep/*)
        other=$(cut -d/ -f2 <<<"$header")
        [ -e "include/$header" ] || complain "$file:$line: there is no public header $header"
        [ "$(level "$other")" -le "$(level "$floor")" ] || of_tests "$file" || complain "$file:$line: floor $floor includes $header of the floor $other above it"
        ;;
    base/syscalls.h | base/faults.h | base/sanitizers.h) ;;
    *.pb-c.h) # made from src/FLOOR/.../proto/NAME.proto
        other=$(find src -path "*/proto/${header%.pb-c.h}.proto" | head -n 1 | cut -d/ -f2)
        [ "$(level "${other:-none}")" -ge 0 ] || complain "$file:$line: there is no ${header%.pb-c.h}.proto in a folder proto of src"
        [ "$(level "${other:-none}")" -le "$(level "$floor")" ] || of_tests "$file" || complain "$file:$line: floor $floor includes $header of the floor $other above it"
        ;;
    */*)
        other=$(cut -d/ -f1 <<<"$header")
        [ -e "$(dirname "$file")/$header" ] || [ "$other" = "$floor" ] || of_tests "$file" || complain "$file:$line: floor $floor includes the private $header of another"
        ;;
    esac
done < <(grep -nE '^ *# *include "' -r src include --include='*.c' --include='*.h')
# An internal name says whose it is: lk__FLOOR or lk__FOLDER, a folder of a floor. Two floors have rooms without a folder.
# base wraps system calls and names them as they are.
rooms="$(find src/* -type d -printf '%f|')comm|launch|plot"
while IFS=: read -r file line name; do
    complain "$file:$line: begin $name with lk__$(cut -d/ -f2 <<<"$file")_ or with the name of a folder in that floor"
done < <(grep -noE '\<lk__\w+' -r src --include='*.h' | grep -v '^src/base/' | grep -vE ":lk__($rooms)")
wanted=$(for f in "${floors[@]}"; do for h in include/lockstep/"$f"/*.h; do [ ! -e "$h" ] || echo "#include \"${h#include/}\""; done; done)
[ "$(grep '^#include' include/lockstep.h)" = "$wanted" ] || complain "include/lockstep.h must include every public header, floor by floor:
$wanted"
exit $bad
