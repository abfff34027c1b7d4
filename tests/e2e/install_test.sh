#!/bin/bash
# What `make install` puts where: headers for C and C++, both libraries, pkg-config, examples that build and run from there.
. "$(dirname "$0")/lib.sh"
ROOT=$(cd "$HERE/../.." && pwd)
CC=${CC:-cc}
install_to() { make -s -C "$ROOT" BUILD="${BUILD:-build}" "$@"; }
U=$WORK/usr

check "make install" install_to install PREFIX="$U"
make_base() { env -u SHOW_MADE make -C "$ROOT" BUILD="$WORK/base" FLOORS=base MPI=no SAN= "$@" all; }
equal "make -s says nothing" "$(make_base -s 2>&1)nothing" nothing
rm base/liblockstep.so
check "make says what it makes" make_base
said "a line each" "^  .*/base/liblockstep.so$"
check "make install with DESTDIR" install_to install DESTDIR="$WORK/stage" PREFIX=/opt/lockstep
files() { (cd "$1" && find . \( -type f -o -type l \) | LC_ALL=C sort); }
equal "DESTDIR holds the same files, below PREFIX" "$(files stage/opt/lockstep)" "$(files usr)"
equal "and nothing beside" "$(ls stage) $(ls stage/opt)" "opt lockstep"
equal "what pkg-config is told does not name DESTDIR" "$(head -n 1 stage/opt/lockstep/lib/pkgconfig/lockstep.pc)" "prefix=/opt/lockstep"

# --- documents -------------------------------------------------------------------------------------------------------
dead_links() { # of every installed page
    local f l
    find "$U/share/doc/lockstep" -name '*.md' | while read -r f; do
        grep -oE '\]\([^)]+\)' "$f" | sed 's/^](//; s/)$//; s/#.*//' | grep -v '^http' | grep . | while read -r l; do
            [ -e "$(dirname "$f")/$l" ] || echo "$f: $l"
        done
    done
}
equal "links between the installed pages hold" "$(dead_links)none" none
check "there are links" grep -q '](docs/tutorial.md)' "$U/share/doc/lockstep/README.md"

# --- headers ---------------------------------------------------------------------------------------------------------
alone() { # FILE-ENDING COMPILER...: every header by itself
    local h
    for h in $(cd "$U/include" && find . -name '*.h'); do
        echo "#include <${h#./}>" >"one.$1"
        "${@:2}" -Wall -Wextra -Werror -I"$U/include" -fsyntax-only "one.$1" || return 1
    done
}
check "every header alone is C11" alone c "$CC" -std=c11
check "every header alone is C++17" alone cc g++ -std=c++17

# --- what the shared library shows -------------------------------------------------------------------------------------
# gcc lists every declaration with its file; functions defined in a header are its own.
echo '#include "lockstep.h"' >all.c
quiet gcc -I"$U/include" -fsyntax-only -aux-info declared.txt all.c
# The name is the last word before the first bracket; those of leveldb.h say their symbols.
sed -n 's/^\/\* [^ ]*\/lockstep\/[a-z]*\/[a-z0-9_]*\.h:[0-9]*:NC \*\/ extern \([^(]*\)(.*/\1/p' declared.txt | grep -oE 'lk_[a-z0-9_]+ *$' | tr -d ' ' >declared
grep -oE 'LK__LEVELDB\(leveldb_[a-z_]+' "$U/include/lockstep/leveldb.h" | sed 's/.*(/lk_/' >>declared
sort -u -o declared declared
nm -D --defined-only "$U/lib/liblockstep.so" | awk '$2 != "A" { print $3 }' | sed 's/@.*//' | sort -u >exported
check "there are functions to compare" test "$(wc -l <declared)" -gt 250
equal "the shared library shows the functions of the headers, no more and no less" "$(diff declared exported)equal" equal
equal "its soname" "$(objdump -p "$U/lib/liblockstep.so" | awk '/SONAME/ { print $2 }')" liblockstep.so.0
equal "its file has the version" "$(readlink -f "$U/lib/liblockstep.so.0" | sed 's/.*so\.//')" "$("$U/bin/lockstep" version | awk '{ print $2 }')"
cat >version.c <<'C'
#include <lockstep/base/version.h>
#include <stdio.h>
int main(void) { return puts(lk_version()) < 0; }
C
check "a program asks for the version" "$CC" -std=c11 -I"$U/include" version.c -o version -L"$U/lib" -llockstep -Wl,-rpath,"$U/lib"
equal "the library's is the program's" "$(./version)" "$("$U/bin/lockstep" --version | awk '{ print $2 }')"

# --- the examples, as a user builds them ---------------------------------------------------------------------------------
export PKG_CONFIG_PATH=$U/lib/pkgconfig
mkdir shared static
for e in train generate kv table; do
    check "examples/$e.c is short" test "$(wc -l <"$U/share/doc/lockstep/examples/$e.c")" -lt 60
    check "examples/$e.c builds with the shared library" "$CC" -std=c11 -Wall -Wextra -Werror \
        "$U/share/doc/lockstep/examples/$e.c" -o shared/$e $(pkg-config --cflags --libs lockstep)
    check "and all static" "$CC" -std=c11 -static "$U/share/doc/lockstep/examples/$e.c" -o static/$e $(pkg-config --static --cflags --libs lockstep)
done
check "examples/leveldb_copy.c is short" test "$(wc -l <"$U/share/doc/lockstep/examples/leveldb_copy.c")" -lt 60
check "examples/leveldb_copy.c builds" "$CC" -std=c11 -Wall -Wextra -Werror -DLOCKSTEP "$U/share/doc/lockstep/examples/leveldb_copy.c" -o copy $(pkg-config --cflags --libs lockstep)
export LD_LIBRARY_PATH=$U/lib
check "and takes rows" bash -c 'printf "\1\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0kv" | tee rows | ./copy in level'
equal "and gives them back" "$(./copy out level | cmp - rows && echo same)" same
equal "the shared one uses the shared library" "$(ldd shared/train | awk '/liblockstep/ { print $1, $3 }')" "liblockstep.so.0 $U/lib/liblockstep.so.0"

# The same by the program: configuration from the example's own text.
text 60000 3 >text.txt
printf '%b' "$(sed -n 's/^[^"]*"\(\[.*\)";\{0,1\}$/\1/p' "$ROOT/examples/train.c")" >tiny.ini
export LOCKSTEP_STORE=$WORK/program
quiet "$U/bin/lockstep" tokenizer train text.txt --vocab 512 --name text
quiet "$U/bin/lockstep" dataset build text text.txt --tokenizer text --holdout 0.05
check "the installed program trains the example's configuration" "$U/bin/lockstep" train tiny.ini
want=$(LOCKSTEP=$U/bin/lockstep run_field tiny weights_root)
last=$("$U/bin/lockstep" runs log tiny | awk 'END { printf "%.4f", $2 }')
quiet "$U/bin/lockstep" generate tiny "the " --tokens 100 --temperature 0.8 --top-p 0.95 --seed 1 >/dev/null && cp .out program.txt
for how in shared static; do
    check "$how train runs" ./$how/train text.txt $how/store
    equal "$how: its root is the program's" "$(sed -n 's/^weights root //p' .out)" "$want"
    equal "$how: its last loss too" "$(sed -n 's/^step 20 of 20: loss //p' .out)" "$last"
    check "$how generate runs" ./$how/generate $how/store tiny "the "
    equal "$how: its text is the program's" "the $(sed '$d' .out)" "$(cat program.txt)"
    fails "$how generate: an unknown run" 1 "nobody" -- ./$how/generate $how/store nobody "the "
done

check "table runs" sh -c "./shared/table file:lab k/t 20 k/ && ./static/table file:lab k/u 21 k/"
equal "table: both cells" "$(awk '{ print $1, $3 }' .out | tail -n 2 | tr '\n' ';')" 'k/t 20;k/u 21;'
equal "the program reads its table" "$("$U/bin/lockstep" table count measured --store lab)" 2

# --- many ranks -------------------------------------------------------------------------------------------------------------
if have_ranks; then
    check "the installed program starts ranks" "$U/bin/lockstep" train tiny.ini run.name=two --on local:2
    equal "with the same root" "$(LOCKSTEP=$U/bin/lockstep run_field two weights_root)" "$want"
    cat >ranks.c <<'C'
#include <lockstep/cluster/comm.h>
#include <stdio.h>
int main(void) {
    struct lk_err err = {0};
    struct lk_comm *c;
    if (lk_comm_open(&c, &err)) return fprintf(stderr, "%s\n", err.message), 1;
    printf("rank %d of %d\n", lk_comm_rank(c), lk_comm_ranks(c));
    lk_comm_close(c);
    return 0;
}
C
    check "a program of ranks builds" "$CC" ranks.c -o ranks $(pkg-config --cflags --libs lockstep)
    check "and finds the MPI part beside the library" mpi -n 2 ./ranks
    equal "on both ranks" "$(sort .out)" "rank 0 of 2
rank 1 of 2"
fi

check "make uninstall" install_to uninstall PREFIX="$U"
equal "nothing is left" "$(files "$U")none" none
equal "no folder of ours either" "$(find "$U" -name '*lockstep*')none" none
finish
